"use strict";
// The panel beside a map: an image, what is known and predicted of it, and its neighbours as buttons.
window.MapPanel = class {
  constructor(panel, onPick) {
    Object.assign(this, { panel, onPick });
    this.seen = [];
    panel.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.onPick(null, true);
    });
  }

  close() {
    this.panel.hidden = true;
    this.panel.replaceChildren();
    this.seen = [];
  }

  // Shows an image; `focus` moves the keyboard to its heading.
  show(map, image, focus) {
    const { group } = map;
    if (this.seen.at(-1) !== image) this.seen.push(image);
    const picture = element("canvas", "", { role: "img", "aria-label": `Thumbnail of ${group.names[image]}` });
    imageMaps.paint(picture, group, image, 144);
    const title = element("h3", group.names[image], { id: "map-panel-title", tabindex: "-1" });
    this.panel.replaceChildren(this.buttons(), picture, title, this.facts(map, image), ...this.list(map, image));
    this.panel.hidden = false;
    this.panel.scrollTop = 0;
    if (focus) title.focus();
    announce(`${group.names[image]}, ${group.className(group.labels[image])}`);
  }

  buttons() {
    const bar = element("div", "", { class: "map-panel-bar" });
    const back = element("button", "Back", { type: "button", class: "small" });
    back.disabled = this.seen.length < 2;
    back.addEventListener("click", () => {
      this.seen.pop();
      this.onPick(this.seen.pop(), true);
    });
    const close = element("button", "Close", { type: "button", class: "small" });
    close.addEventListener("click", () => this.onPick(null, true));
    bar.append(back, close);
    return bar;
  }

  facts(map, image) {
    const { group } = map;
    const list = element("dl", "", { class: "map-facts" });
    const add = (term, text, kind) => {
      list.append(element("dt", term), element("dd", text, kind ? { class: kind } : {}));
    };
    const label = group.labels[image];
    if (label >= 0) add("class", group.className(label));
    const several = group.predictions.length > 4;
    if (!several) for (const each of group.predictions) add(...this.guess(group, image, each));
    const typical = map.typicality(image);
    const others = label >= 0 ? "others of its class" : "all others";
    if (typical !== null) add(`mean cosine with ${others}`, typical.toFixed(3));
    if (!several) return list;
    const right = group.predictions.filter((each) => each.predicted[image] === label).length;
    const folded = element("details");
    const guesses = element("dl", "", { class: "map-facts" });
    for (const each of group.predictions) {
      const [term, text, kind] = this.guess(group, image, each);
      guesses.append(element("dt", term), element("dd", text, { class: kind }));
    }
    folded.append(element("summary", `right in ${right} of ${group.predictions.length} records`), guesses);
    const both = element("div");
    both.append(list, folded);
    return both;
  }

  // What a record predicts of an image: its name, the class, and whether that is right.
  guess(group, image, { name, predicted }) {
    const right = predicted[image] === group.labels[image];
    return [name, `${right ? "✓" : "✗"} ${group.className(predicted[image])}`, right ? "right" : "wrong"];
  }

  list(map, image) {
    const { group } = map;
    const neighbours = map.neighbours(image);
    if (!neighbours.length) return [element("p", "It has no neighbours: it is the only image.")];
    const list = element("ol", "", { class: "map-list", "aria-label": "Neighbours" });
    for (const neighbour of neighbours) {
      const same = group.labels[neighbour.image] === group.labels[image];
      const kind = group.labels[neighbour.image] < 0 ? "" : `${group.className(group.labels[neighbour.image])}${same ? "" : " (another class)"}, `;
      list.append(this.entry(group, neighbour.image, `${kind}cosine ${neighbour.cosine.toFixed(3)}`));
    }
    return [element("h4", "Nearest by features"), list];
  }

  // A button of a list that opens an image.
  entry(group, image, note) {
    const item = element("li");
    const button = element("button", "", { type: "button", class: "map-entry", "data-image": image });
    const picture = element("canvas", "", { "aria-hidden": "true" });
    imageMaps.paint(picture, group, image, 48);
    const words = element("span");
    words.append(element("span", group.names[image], { class: "map-name" }), element("span", note, { class: "quiet" }));
    button.append(picture, words);
    button.addEventListener("click", () => this.onPick(image, true));
    item.append(button);
    return item;
  }
};
