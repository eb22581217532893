// A picture that is clicked opens in a dialog: Escape closes it, arrow keys go to the next, Full size scrolls.
(() => {
  "use strict";
  const dialog = document.getElementById("lightbox");
  const stage = dialog.querySelector(".lightbox-stage");
  const large = stage.querySelector("img");
  const zoom = dialog.querySelector("[data-zoom]");
  const pictures = [...document.querySelectorAll(".picture")];
  let shown = 0;

  function setZoom(on) {
    stage.classList.toggle("zoomed", on);
    zoom.setAttribute("aria-pressed", String(on));
  }

  function show(number) {
    shown = (number + pictures.length) % pictures.length;
    const image = pictures[shown].querySelector("img");
    large.src = image.src;
    large.alt = image.alt;
    dialog.querySelector("#lightbox-title").textContent = `${shown + 1} of ${pictures.length}: ${image.alt}`;
    setZoom(false);
  }

  pictures.forEach((button, number) => {
    button.addEventListener("click", () => {
      show(number);
      dialog.showModal();
      stage.focus();
    });
  });
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  for (const button of dialog.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => show(shown + Number(button.dataset.step)));
  }
  zoom.addEventListener("click", () => setZoom(zoom.getAttribute("aria-pressed") === "false"));
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    if (stage.classList.contains("zoomed") || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") show(shown - 1);
    if (event.key === "ArrowRight") show(shown + 1);
  });
  dialog.addEventListener("close", () => pictures[shown].focus());
})();
