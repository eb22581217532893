"use strict";
// Images that stand out: thumbnails from the sheets of the map, and the way to their places on it.
(() => {
  const which = document.getElementById("gallery-which");
  const SIDE = 96; // CSS pixels of a thumbnail
  for (const gallery of document.querySelectorAll(".gallery")) {
    for (const canvas of gallery.querySelectorAll("canvas")) {
      imageMaps.paint(canvas, imageMaps.groups[Number(canvas.dataset.group)], Number(canvas.dataset.image), SIDE);
    }
    for (const button of gallery.querySelectorAll(".gallery-open")) {
      button.addEventListener("click", () => openOnMap(Number(gallery.dataset.map), Number(button.dataset.image)));
    }
  }
  which?.addEventListener("change", () => {
    for (const gallery of document.querySelectorAll(".gallery")) gallery.hidden = gallery.dataset.map !== which.value;
  });
})();
