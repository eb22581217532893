"use strict";
// The maps that the page holds: arrays from base64, and thumbnails from their sheets.
window.imageMaps = (() => {
  const data = readData("map");
  const numbers = (text, Kind) => {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    return new Kind(bytes.buffer, 0, bytes.length / Kind.BYTES_PER_ELEMENT);
  };
  const cosine = (steps) => (steps === data.unknown ? null : steps / data.cosineSteps);

  const groups = data.groups.map((group) => {
    const sheets = group.sheets.map((address) => {
      const sheet = new Image();
      sheet.src = address;
      return sheet;
    });
    return {
      ...group,
      count: group.names.length,
      labels: numbers(group.labels, Int16Array),
      predictions: group.predictions.map((each) => ({ ...each, predicted: numbers(each.predicted, Int16Array) })),
      sheets,
      ready: Promise.allSettled(sheets.map((sheet) => sheet.decode())),
      className(label) {
        return label < 0 ? "no class" : (group.classes[label] ?? `class ${label}`);
      },
      // Draws the thumbnail of an image into a square of `size`; nothing before its sheet is decoded.
      draw(context, image, x, y, size) {
        const sheet = sheets[Math.floor(image / group.perSheet)];
        if (!sheet.complete || !sheet.naturalWidth) return;
        const place = image % group.perSheet;
        const left = (place % group.columns) * group.side;
        const top = Math.floor(place / group.columns) * group.side;
        context.drawImage(sheet, left, top, group.side, group.side, x, y, size, size);
      },
    };
  });

  const maps = data.maps.map((map) => {
    const positions = numbers(map.positions, Uint16Array);
    const neighbours = numbers(map.neighbours, Uint16Array);
    const similarities = numbers(map.similarities, Int16Array);
    const typicality = numbers(map.typicality, Int16Array);
    const x = Float32Array.from({ length: positions.length / 2 }, (_, image) => positions[2 * image] / 65535);
    const y = Float32Array.from({ length: positions.length / 2 }, (_, image) => positions[2 * image + 1] / 65535);
    return {
      name: map.name,
      group: groups[map.group],
      groupNumber: map.group,
      x,
      y,
      typicality: (image) => cosine(typicality[image]),
      neighbours(image) {
        const begin = image * map.neighbourCount;
        return Array.from({ length: map.neighbourCount }, (_, rank) => ({
          image: neighbours[begin + rank],
          cosine: cosine(similarities[begin + rank]),
        }));
      },
    };
  });

  // Fills a canvas element with a thumbnail, `size` CSS pixels a side.
  const paint = (canvas, group, image, size) => {
    const side = Math.min(Math.round(size * window.devicePixelRatio), Math.max(group.side, size));
    canvas.width = canvas.height = side;
    canvas.style.width = canvas.style.height = `${size}px`;
    group.ready.then(() => group.draw(canvas.getContext("2d"), image, 0, 0, side));
  };
  return { groups, maps, paint };
})();
