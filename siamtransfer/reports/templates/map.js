"use strict";
// The map of images: which map, which colours, the legend, the search, and what a click does.
window.openOnMap = (() => {
  const find = (id) => document.getElementById(id);
  const [which, colours, legend, search, found] = ["map-which", "map-colours", "map-legend", "map-search", "map-found"].map(find);
  const canvas = find("map-canvas");
  const PAGE = 24; // results that are listed at once
  const FIFTHS = ["least typical fifth", "second fifth", "middle fifth", "fourth fifth", "most typical fifth"];
  let map = imageMaps.maps[0];
  let colouring = null;
  let listsAll = false; // whether the list has all images when nothing is looked for

  const pick = (image, byKey) => {
    view.select(image);
    if (image === null) {
      panel.close();
      if (byKey) canvas.focus();
      return;
    }
    panel.show(map, image, byKey);
    find("image-map").querySelector(".map-stage").scrollIntoView({ block: "nearest" });
  };
  const view = new MapView(canvas);
  new MapGestures(view, find("map-tip"), pick);
  const panel = new MapPanel(find("map-panel"), pick);

  const category = (name, number) => ({
    name,
    colour: number % MapView.COLOURS,
    shape: Math.floor(number / MapView.COLOURS) % MapView.SHAPES.length,
    shown: true,
  });

  // Categories of class numbers, in which every class keeps its place and -1 comes last.
  const byClass = (numbers) => {
    const { classes, className } = map.group;
    const categories = classes.map((name, number) => category(name, number));
    const size = numbers.reduce((most, number) => Math.max(most, number), -1) + 1;
    while (categories.length < size) categories.push(category(className(categories.length), categories.length));
    categories.push({ ...category("no class", 7), colour: 7 });
    return { of: numbers.map((number) => (number < 0 ? categories.length - 1 : number)), categories };
  };

  const rightOrWrong = ({ predicted }) => ({
    of: predicted.map((guess, image) => (map.group.labels[image] < 0 ? 2 : Number(guess !== map.group.labels[image]))),
    categories: [category("right", 0), { ...category("wrong", 1), shape: 2 }, category("no class", 7)],
  });

  const byFifths = () => {
    const values = Array.from(map.x, (_, image) => map.typicality(image));
    const order = values.map((value, image) => image).filter((image) => values[image] !== null);
    order.sort((one, other) => values[one] - values[other]);
    const of = new Int16Array(values.length).fill(5);
    order.forEach((image, place) => (of[image] = Math.floor((5 * place) / order.length)));
    const shades = [1, 4, 6, 5, 0];
    const categories = FIFTHS.map((name, place) => ({ ...category(name, shades[place]), shape: place === 0 ? 2 : 0 }));
    return { of, categories: [...categories, category("not known", 7)] };
  };

  const choices = () => {
    const { group } = map;
    const labelled = group.labels.some((label) => label >= 0);
    return [
      ...(labelled ? [["class", () => byClass(group.labels)]] : []),
      ...group.predictions.map((each) => [`right or wrong · ${each.name}`, () => rightOrWrong(each)]),
      ...group.predictions.map((each) => [`predicted class · ${each.name}`, () => byClass(each.predicted)]),
      ["how typical", byFifths],
      ["all alike", () => ({ of: new Int16Array(group.count), categories: [category("images", 0)] })],
    ];
  };

  const swatch = ({ colour, shape }) => {
    const paths = [
      "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11z",
      "M3 3h10v10H3z",
      "M8 2l6 11H2z",
      "M8 1.5L14.5 8L8 14.5L1.5 8z",
    ];
    const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    drawing.setAttribute("viewBox", "0 0 16 16");
    drawing.setAttribute("aria-hidden", "true");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", paths[shape]);
    path.style.fill = `var(--series-${colour + 1})`;
    drawing.append(path);
    return drawing;
  };

  const drawLegend = () => {
    const counts = new Map();
    for (const number of colouring.of) counts.set(number, (counts.get(number) ?? 0) + 1);
    const entries = [...counts.keys()].sort((one, other) => one - other).map((number) => colouring.categories[number]);
    const buttons = entries.map((entry) => {
      const count = counts.get(colouring.categories.indexOf(entry));
      const button = element("button", "", { type: "button", class: "map-key", "aria-pressed": "true" });
      button.append(swatch(entry), element("span", entry.name), element("span", count.toLocaleString("en"), { class: "quiet" }));
      button.addEventListener("click", () => {
        entry.shown = !entry.shown;
        button.setAttribute("aria-pressed", String(entry.shown));
        view.draw();
      });
      for (const name of ["pointerenter", "focus"]) button.addEventListener(name, () => view.emphasise(entry.shown ? entry : null));
      for (const name of ["pointerleave", "blur"]) button.addEventListener(name, () => view.emphasise(null));
      return button;
    });
    const all = (text, shown) => {
      const button = element("button", text, { type: "button", class: "small" });
      button.addEventListener("click", () => {
        for (const entry of entries) entry.shown = shown;
        for (const each of buttons) each.setAttribute("aria-pressed", String(shown));
        view.draw();
      });
      return button;
    };
    legend.replaceChildren(...buttons, ...(buttons.length > 2 ? [all("All", true), all("None", false)] : []));
  };

  const recolour = () => {
    colouring = choices()[colours.selectedIndex][1]();
    view.emphasised = null;
    view.show(map, colouring);
    drawLegend();
  };

  const list = () => {
    const words = search.value.trim().toLowerCase();
    const { group } = map;
    const images = group.names.flatMap((name, image) => (name.toLowerCase().includes(words) ? [image] : []));
    view.marked = new Set(words ? images : []);
    view.draw();
    found.hidden = !words && !listsAll;
    const items = found.querySelector("ul");
    const more = found.querySelector("[data-more]");
    find("map-found-count").textContent = `${images.length.toLocaleString("en")} of ${group.count.toLocaleString("en")} images`;
    if (words) announce(find("map-found-count").textContent);
    const add = () => {
      const begin = items.children.length;
      for (const image of images.slice(begin, begin + PAGE)) {
        items.append(panel.entry(group, image, group.className(group.labels[image])));
      }
      more.hidden = items.children.length >= images.length;
    };
    items.replaceChildren();
    if (!found.hidden) add();
    more.onclick = add;
  };

  const change = (place) => {
    map = imageMaps.maps[place];
    which.selectedIndex = place;
    for (const note of document.querySelectorAll(".map-note")) note.hidden = Number(note.dataset.map) !== place;
    const chosen = colours.value;
    colours.replaceChildren(...choices().map(([name]) => element("option", name)));
    const kept = choices().findIndex(([name]) => name === chosen);
    colours.selectedIndex = Math.max(0, kept);
    canvas.setAttribute("aria-label", `Map of ${map.group.count} images: ${map.name}`);
    view.selected = null;
    panel.close();
    recolour();
    list();
  };

  which.addEventListener("change", () => change(which.selectedIndex));
  colours.addEventListener("change", recolour);
  search.addEventListener("input", list);
  find("map-list-all").addEventListener("click", (event) => {
    listsAll = !listsAll;
    event.target.setAttribute("aria-expanded", String(listsAll));
    list();
  });
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") found.querySelector(".map-entry")?.click();
    if (event.key === "Escape") {
      search.value = "";
      list();
    }
  });
  const zooms = { in: () => view.zoomBy(1.6), out: () => view.zoomBy(1 / 1.6), all: () => view.showAll() };
  for (const button of document.querySelectorAll("[data-zoom]")) {
    if (zooms[button.dataset.zoom]) button.addEventListener("click", zooms[button.dataset.zoom]);
  }
  change(0);

  // Shows an image on a map, from elsewhere in the page.
  return (place, image) => {
    if (imageMaps.maps[place] !== map) change(place);
    find("image-map").scrollIntoView({ block: "start" });
    pick(image, true);
  };
})();
