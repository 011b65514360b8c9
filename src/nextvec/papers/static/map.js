// Zoom and pan on the map of topics. Without this file it is a picture with links.
"use strict";

for (const map of document.querySelectorAll("[data-map]")) {
  const [, , width, height] = map.getAttribute("viewBox").split(" ").map(Number);
  const most = 8;
  let zoom = 1, x = 0, y = 0; // of the upper left corner, in units of the map

  const draw = () => {
    zoom = Math.min(Math.max(zoom, 1), most);
    x = Math.min(Math.max(x, 0), width - width / zoom);
    y = Math.min(Math.max(y, 0), height - height / zoom);
    map.setAttribute("viewBox", `${x} ${y} ${width / zoom} ${height / zoom}`);
    for (const level of [2, 3, 4]) map.classList.toggle(`z${level}`, level === (zoom < 1.6 ? 1 : zoom < 2.7 ? 2 : zoom < 4.4 ? 3 : 4));
  };
  const unit = () => width / zoom / map.clientWidth; // of the map, per pixel
  const at = (event) => {
    const box = map.getBoundingClientRect();
    return [(event.clientX - box.left) * unit(), (event.clientY - box.top) * unit()];
  };
  const enlarge = (by, dx = width / zoom / 2, dy = height / zoom / 2) => {
    const before = zoom;
    zoom = Math.min(Math.max(zoom * by, 1), most);
    x += dx * (1 - before / zoom);
    y += dy * (1 - before / zoom);
    draw();
  };

  map.setAttribute("tabindex", "0");
  for (const hidden of document.querySelectorAll(".map-tools, .map-keys")) hidden.hidden = false;
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => {
      if (button.dataset.zoom === "all") { zoom = 1; draw(); }
      else enlarge(button.dataset.zoom === "in" ? 1.5 : 1 / 1.5);
    });
  }

  map.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && !map.contains(document.activeElement)) return; // the page scrolls
    event.preventDefault();
    enlarge(Math.exp(-event.deltaY / 300), ...at(event));
  }, { passive: false });

  let from = null, moved = false;
  map.addEventListener("pointerdown", (event) => {
    if (event.button || (event.pointerType === "touch" && zoom === 1)) return;
    from = [event.clientX, event.clientY, x, y];
    moved = false;
  });
  map.addEventListener("pointermove", (event) => {
    if (!from) return;
    const [dx, dy] = [event.clientX - from[0], event.clientY - from[1]];
    if (!moved && Math.hypot(dx, dy) < 5) return;
    if (!moved) map.setPointerCapture(event.pointerId);
    moved = true;
    map.classList.add("moving");
    x = from[2] - dx * unit();
    y = from[3] - dy * unit();
    draw();
  });
  const release = () => { from = null; map.classList.remove("moving"); };
  map.addEventListener("pointerup", release);
  map.addEventListener("pointercancel", release);
  map.addEventListener("click", (event) => { if (moved) event.preventDefault(); moved = false; }, true);
  map.addEventListener("dragstart", (event) => event.preventDefault());
  map.addEventListener("dblclick", (event) => { if (!event.target.closest("a")) enlarge(2, ...at(event)); });

  map.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = width / zoom / 8;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (moves[event.key]) {
      if (zoom === 1) return; // there is nowhere to go: the page scrolls
      x += moves[event.key][0];
      y += moves[event.key][1];
      draw();
    } else if (event.key === "+" || event.key === "=") enlarge(1.5);
    else if (event.key === "-") enlarge(1 / 1.5);
    else if (event.key === "0") { zoom = 1; draw(); }
    else return;
    event.preventDefault();
  });

  // A topic under the pointer or with the focus stands out, and is brought into view.
  const mark = (number) => {
    map.classList.toggle("some", number !== undefined);
    for (const one of map.querySelectorAll("[data-topic]")) one.classList.toggle("on", one.dataset.topic === number);
  };
  map.addEventListener("pointerover", (event) => mark(event.target.closest("[data-topic]")?.dataset.topic));
  map.addEventListener("pointerleave", () => mark(undefined));
  map.addEventListener("focusin", (event) => {
    const topic = event.target.closest("[data-topic]");
    mark(topic?.dataset.topic);
    const text = topic?.querySelector("text");
    if (!text || zoom === 1) return;
    const [cx, cy] = [Number(text.getAttribute("x")), Number(text.getAttribute("y"))];
    if (cx < x || cx > x + width / zoom || cy < y || cy > y + height / zoom) {
      x = cx - width / zoom / 2;
      y = cy - height / zoom / 2;
      draw();
    }
  });
  map.addEventListener("focusout", () => mark(undefined));
}
