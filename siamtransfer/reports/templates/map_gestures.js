"use strict";
// What mouse, fingers and keys do on a map: move, zoom, point at an image, pick it.
window.MapGestures = class {
  constructor(view, tip, onPick) {
    Object.assign(this, { view, tip, onPick });
    this.pointers = new Map();
    this.listen(view.canvas);
  }

  listen(canvas) {
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse" && event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, at(event));
      this.moved = this.pointers.size > 1;
      this.tip.hidden = true;
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.pointers.has(event.pointerId)) return this.hover(event, at(event));
      this.drag(event.pointerId, at(event));
    });
    canvas.addEventListener("pointerup", (event) => {
      if (!this.pointers.delete(event.pointerId) || this.moved) return;
      const { x, y } = at(event);
      const image = this.view.nearest(x, y, this.reach(event));
      if (image !== null) this.onPick(image, false);
    });
    canvas.addEventListener("pointercancel", (event) => this.pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => (this.tip.hidden = true));
    canvas.addEventListener("wheel", (event) => {
      // The wheel moves the page until the map was clicked; with Ctrl, or two fingers, it always zooms.
      if (!event.ctrlKey && !event.metaKey && document.activeElement !== canvas) return;
      event.preventDefault();
      this.view.zoomBy(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0016)), at(event));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
    for (const name of ["focus", "blur"]) canvas.addEventListener(name, () => this.view.draw());
  }

  drag(pointer, to) {
    const from = this.pointers.get(pointer);
    if (this.pointers.size === 1) {
      if (!this.moved && Math.hypot(to.x - from.x, to.y - from.y) < 5) return;
      this.moved = true;
      this.pointers.set(pointer, to);
      return this.view.moveBy(to.x - from.x, to.y - from.y);
    }
    const other = [...this.pointers].find(([id]) => id !== pointer)[1];
    const apart = (point) => Math.max(1, Math.hypot(point.x - other.x, point.y - other.y));
    this.pointers.set(pointer, to);
    this.view.moveBy((to.x - from.x) / 2, (to.y - from.y) / 2);
    return this.view.zoomBy(apart(to) / apart(from), { x: (to.x + other.x) / 2, y: (to.y + other.y) / 2 });
  }

  // How far from an image, in CSS pixels, a pointer may be that means it.
  reach(event) {
    const finger = event.pointerType === "touch" ? 24 : 12;
    const { thumbnail } = this.view;
    return thumbnail ? Math.max(finger, thumbnail * 0.6) : finger;
  }

  hover(event, { x, y }) {
    const { view, tip } = this;
    const image = event.pointerType === "touch" || !view.map ? null : view.nearest(x, y, this.reach(event));
    view.canvas.style.cursor = image === null ? "grab" : "pointer";
    tip.hidden = image === null;
    if (image === null) return;
    tip.textContent = `${view.map.group.names[image]} · ${view.categoryOf(image).name}`;
    const right = x > view.width / 2;
    tip.style.left = right ? "auto" : `${x + 14}px`;
    tip.style.right = right ? `${view.width - x + 14}px` : "auto";
    tip.style.top = `${Math.min(y + 14, view.height - 34)}px`;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { view } = this;
    const step = Math.min(view.width, view.height) / 8;
    const actions = {
      ArrowLeft: () => view.moveBy(step, 0),
      ArrowRight: () => view.moveBy(-step, 0),
      ArrowUp: () => view.moveBy(0, step),
      ArrowDown: () => view.moveBy(0, -step),
      "+": () => view.zoomBy(1.5),
      "=": () => view.zoomBy(1.5),
      "-": () => view.zoomBy(1 / 1.5),
      0: () => view.showAll(),
      Enter: () => {
        const image = view.nearest(view.width / 2, view.height / 2);
        if (image !== null) this.onPick(image, true);
      },
      Escape: () => this.onPick(null, true),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }
};
