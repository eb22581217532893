"use strict";
// What all scripts of the page share: the data that it holds, elements made of text, and announcements.
window.readData = (id) => {
  const holder = document.getElementById(`data-${id}`);
  return holder ? JSON.parse(holder.textContent) : null;
};
window.element = (tag, text = "", attributes = {}) => {
  const made = document.createElement(tag);
  if (text !== "") made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};
window.announce = (text) => {
  document.getElementById("status").textContent = text;
};
// A link to something within a folded part opens it.
(() => {
  const open = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    const inner = target.querySelector(":scope > details");
    if (inner) inner.open = true;
    for (let folded = target.closest("details"); folded; folded = folded.parentElement.closest("details")) folded.open = true;
    target.scrollIntoView();
  };
  window.addEventListener("hashchange", open);
  if (location.hash) open();
})();
