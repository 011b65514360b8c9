// Suggestions under the search field (ARIA combobox). htmx fetches them; without this file the field is a plain one.
"use strict";

for (const field of document.querySelectorAll("[data-suggest]")) {
  const list = document.getElementById(field.dataset.suggest);
  const options = () => [...list.querySelectorAll("[role=option]")];
  let at = -1;

  const show = (open) => {
    list.hidden = !open;
    field.setAttribute("aria-expanded", String(open));
    if (!open) choose(-1);
  };
  const choose = (place) => {
    at = place;
    options().forEach((option, i) => option.setAttribute("aria-selected", String(i === at)));
    const option = options()[at];
    if (option) {
      field.setAttribute("aria-activedescendant", option.id);
      option.scrollIntoView({ block: "nearest" });
    } else field.removeAttribute("aria-activedescendant");
  };

  field.setAttribute("role", "combobox");
  field.setAttribute("aria-autocomplete", "list");
  field.setAttribute("aria-controls", list.id);
  field.setAttribute("aria-expanded", "false");

  field.addEventListener("htmx:after:swap", () => {
    choose(-1);
    show(options().length > 0 && document.activeElement === field);
  });
  list.addEventListener("mousedown", (event) => event.preventDefault()); // the field keeps the focus
  field.addEventListener("blur", () => show(false));
  field.addEventListener("input", () => { if (!field.value.trim()) show(false); });
  field.addEventListener("keydown", (event) => {
    const count = options().length;
    if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      show(false);
    } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && count) {
      event.preventDefault();
      if (list.hidden) show(true);
      const step = event.key === "ArrowDown" ? 1 : -1;
      choose(((at + 1 + step + count + 1) % (count + 1)) - 1); // one place more: the field itself
    } else if (event.key === "Enter") {
      if (at >= 0) {
        event.preventDefault();
        location.assign(options()[at].href);
      } else show(false);
    }
  });
}
