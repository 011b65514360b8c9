// Small comforts. Every page works without this file.
"use strict";

// Keys of one letter are in the way of speech input and of slips, so whoever wants can switch them off (WCAG 2.1.4).
let keysHere = true; // for this page, in a browser that keeps nothing
const keysOn = () => {
  try {
    return localStorage.getItem("keys") !== "off";
  } catch {
    return keysHere;
  }
};
const switchKeys = (on) => {
  keysHere = on;
  try {
    if (on) localStorage.removeItem("keys");
    else localStorage.setItem("keys", "off");
  } catch { /* then it holds for this page */ }
  showKeys();
};
const showKeys = () => {
  for (const hint of document.querySelectorAll("[data-key-hint]")) hint.hidden = !keysOn();
};
for (const box of document.querySelectorAll("[data-keys]")) {
  box.checked = keysOn();
  box.closest("[hidden]").hidden = false;
  box.addEventListener("change", () => switchKeys(box.checked));
}
showKeys();

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !keysOn()) return;
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (typing) return;
  if (event.key === "/") {
    const field = document.querySelector("[data-slash]");
    if (field) {
      event.preventDefault();
      field.focus();
      field.select();
    }
  } else if (event.key === "j" || event.key === "k") {
    const titles = [...document.querySelectorAll(".paper-title a")];
    const at = titles.indexOf(document.activeElement);
    const next = titles[event.key === "j" ? at + 1 : Math.max(at - 1, 0)];
    if (next) {
      next.focus();
      next.closest(".paper").scrollIntoView({ block: "nearest" });
    }
  }
});

// The reader's menu lies over the page: Escape and whatever is clicked or reached beside it close it.
for (const menu of document.querySelectorAll("details.me")) {
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
  for (const kind of ["pointerdown", "focusin"]) {
    document.addEventListener(kind, (event) => { if (!menu.contains(event.target)) menu.open = false; });
  }
}

for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
}

// Moments in the reader's own zone, which the server does not know, in the language that it chose.
for (const moment of document.querySelectorAll("time[data-moment]")) {
  const parts = { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", timeZoneName: "short" };
  const form = { ...parts, calendar: "gregory", numberingSystem: "latn" };
  moment.title = moment.textContent;
  moment.textContent = new Intl.DateTimeFormat(moment.lang || "en-GB", form).format(new Date(moment.dateTime));
}

// A browser offers the names of a list for a whole field; here they go on behind the last comma of what is typed.
for (const field of document.querySelectorAll("input[data-several]")) {
  const names = [...(field.list?.options ?? [])].map((option) => option.value);
  if (!names.length) continue;
  const own = field.list.cloneNode(true);
  own.id = `${field.list.id}-of-${field.name}`;
  field.list.after(own);
  field.setAttribute("list", own.id);
  field.addEventListener("input", () => {
    const before = field.value.match(/^.*,\s*/)?.[0] ?? "";
    const there = new Set(before.split(",").map((name) => name.trim().toLowerCase()));
    const left = names.filter((name) => !there.has(name.toLowerCase()));
    own.replaceChildren(...left.map((name) => new Option("", before + name)));
  });
}

for (const field of document.querySelectorAll("select[data-zone]")) {
  const here = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if ([...field.options].some((option) => option.value === here)) field.value = here;
}
