"use strict";
// The canvas of a map: what of it is in sight, as points or thumbnails.
window.MapView = class {
  static MARGIN = 28; // CSS pixels around the whole map
  static SHAPES = ["circle", "square", "triangle", "diamond"];
  static COLOURS = 8;
  static THUMBNAILS = 260; // images in sight, up to which their thumbnails are drawn

  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.marked = new Set();
    this.dots = new Map();
    this.selected = null;
    this.emphasised = null;
    this.centre = { x: 0.5, y: 0.5 };
    this.zoom = 1;
    new ResizeObserver(() => this.resize()).observe(canvas);
    document.addEventListener("themechange", () => this.restyle());
  }

  // `colouring`: {of: Int16Array of categories, categories: [{name, colour, shape, shown}]}.
  show(map, colouring) {
    const other = map !== this.map;
    this.map = map;
    this.left = new Float32Array(map.group.count);
    this.down = new Float32Array(map.group.count);
    this.colouring = colouring;
    if (other) map.group.ready.then(() => this.draw());
    this.restyle();
  }

  restyle() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    this.ink = read("--ink");
    this.paper = read("--paper");
    this.focus = read("--focus");
    this.colours = Array.from({ length: MapView.COLOURS }, (_, place) => read(`--series-${place + 1}`));
    this.dots = new Map();
    this.draw();
  }

  resize() {
    const box = this.canvas.getBoundingClientRect();
    if (!box.width) return;
    this.width = box.width;
    this.height = box.height;
    this.ratio = window.devicePixelRatio || 1;
    this.dots.clear();
    this.canvas.width = Math.round(box.width * this.ratio);
    this.canvas.height = Math.round(box.height * this.ratio);
    this.draw(true);
  }

  get scale() {
    return this.zoom * (Math.min(this.width, this.height) - 2 * MapView.MARGIN);
  }

  // Puts the places of all images on the canvas into `left` and `down`, in CSS pixels.
  project() {
    const { left, down, scale, width, height } = this;
    const { x, y } = this.map;
    const [right, below] = [width / 2 - this.centre.x * scale, height / 2 - this.centre.y * scale];
    for (let image = 0; image < left.length; image += 1) {
      left[image] = x[image] * scale + right;
      down[image] = y[image] * scale + below;
    }
  }

  categoryOf(image) {
    return this.colouring.categories[this.colouring.of[image]];
  }

  isShown(image) {
    return this.categoryOf(image).shown;
  }

  // The shown images on the canvas, or at most `margin` CSS pixels beside it.
  inSight(margin) {
    const { left, down, width, height } = this;
    const found = [];
    for (let image = 0; image < left.length; image += 1) {
      const [x, y] = [left[image], down[image]];
      const inside = x > -margin && y > -margin && x < width + margin && y < height + margin;
      if (inside && this.isShown(image)) found.push(image);
    }
    return found;
  }

  // The shown image nearest to a place, or null beyond `reach` CSS pixels.
  nearest(x, y, reach = Infinity) {
    let best = null;
    let least = reach * reach;
    this.project();
    for (let image = 0; image < this.left.length; image += 1) {
      const distance = (this.left[image] - x) ** 2 + (this.down[image] - y) ** 2;
      if (distance < least && this.isShown(image)) [best, least] = [image, distance];
    }
    return best;
  }

  // What zooming without a pointer leaves in its place: the selected image, or the middle where it is not seen.
  anchor() {
    this.project();
    const [x, y] = [this.left[this.selected], this.down[this.selected]];
    const inside = x > 0 && y > 0 && x < this.width && y < this.height;
    return this.selected !== null && inside ? { x, y } : { x: this.width / 2, y: this.height / 2 };
  }

  zoomBy(factor, { x, y } = this.anchor()) {
    const zoom = Math.min(400, Math.max(0.7, this.zoom * factor));
    const before = this.scale;
    this.zoom = zoom;
    const shift = 1 / before - 1 / this.scale;
    this.centre.x += (x - this.width / 2) * shift;
    this.centre.y += (y - this.height / 2) * shift;
    this.draw();
  }

  moveBy(x, y) {
    this.centre.x = Math.min(1, Math.max(0, this.centre.x - x / this.scale));
    this.centre.y = Math.min(1, Math.max(0, this.centre.y - y / this.scale));
    this.draw();
  }

  showAll() {
    this.centre = { x: 0.5, y: 0.5 };
    this.zoom = 1;
    this.draw();
  }

  // Marks an image and moves it into sight.
  select(image) {
    this.selected = image;
    if (image !== null) {
      this.project();
      const [x, y] = [this.left[image], this.down[image]];
      if (x < 20 || y < 20 || x > this.width - 20 || y > this.height - 20) {
        this.centre = { x: this.map.x[image], y: this.map.y[image] };
      }
    }
    this.draw();
  }

  draw(now = false) {
    if (!this.map || !this.width) return;
    if (now) return this.paint();
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.paint();
    });
  }

  paint() {
    const { context, ratio } = this;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    context.imageSmoothingEnabled = true;
    this.project();
    const seen = this.inSight(40);
    this.canvas.dataset.inSight = seen.length;
    const room = Math.sqrt((0.55 * this.width * this.height) / Math.max(1, seen.length));
    const small = seen.length <= MapView.THUMBNAILS && room >= 20;
    this.thumbnail = small ? Math.min(64, Math.max(24, room)) : 0;
    for (const image of seen) {
      const own = this.categoryOf(image);
      context.globalAlpha = this.emphasised && own !== this.emphasised ? 0.12 : 1;
      small ? this.paintThumbnail(image) : this.paintDot(image);
    }
    context.globalAlpha = 1;
    this.paintSelected();
    this.paintMiddle();
  }

  paintThumbnail(image) {
    const { context, thumbnail } = this;
    const [x, y] = [this.left[image], this.down[image]];
    const category = this.categoryOf(image);
    context.fillStyle = this.marked.has(image) ? this.focus : this.colours[category.colour];
    context.fillRect(x - thumbnail / 2 - 2, y - thumbnail / 2 - 2, thumbnail + 4, thumbnail + 4);
    this.map.group.draw(context, image, x - thumbnail / 2, y - thumbnail / 2, thumbnail);
    this.paintDot(image, -thumbnail / 2, -thumbnail / 2);
  }

  // The dot of an image, beside its place where it marks a thumbnail.
  paintDot(image, right = 0, down = 0) {
    const category = this.categoryOf(image);
    const dot = this.dot(category, this.marked.has(image));
    const side = dot.width / this.ratio;
    this.context.drawImage(dot, this.left[image] + right - side / 2, this.down[image] + down - side / 2, side, side);
  }

  // Makes all but one category pale; null: none.
  emphasise(category) {
    this.emphasised = category;
    this.draw();
  }

  // Of a dot in CSS pixels: small where there are many, a little larger when zoomed in.
  get radius() {
    const room = Math.min(this.width, this.height) / Math.sqrt(this.map.group.count);
    const crowded = Math.min(3.4, Math.max(1.7, room / 2.6));
    return Math.min(5.5, crowded + Math.log2(this.zoom + 1) / 2);
  }

  // A dot as a small picture, which is copied faster than a shape is filled.
  dot(category, marked) {
    const radius = marked ? 7 : this.radius;
    const key = (Math.round(10 * radius) * 2 + Number(marked)) * 64 + category.colour * 4 + category.shape;
    if (!this.dots.has(key)) {
      const dot = document.createElement("canvas");
      dot.width = dot.height = Math.ceil((2 * radius + 3) * this.ratio);
      const context = dot.getContext("2d");
      context.scale(this.ratio, this.ratio);
      MapView.shape(context, category.shape, dot.width / this.ratio / 2, radius);
      context.fillStyle = this.colours[category.colour];
      context.fill();
      context.lineWidth = marked ? 2.5 : 0.6;
      context.strokeStyle = marked ? this.focus : this.paper;
      context.stroke();
      this.dots.set(key, dot);
    }
    return this.dots.get(key);
  }

  static shape(context, shape, middle, radius) {
    context.beginPath();
    if (shape === 0) return context.arc(middle, middle, radius, 0, 7);
    const corners = [null, [45, 135, 225, 315], [90, 210, 330], [0, 90, 180, 270]][shape];
    corners.forEach((degrees, number) => {
      const angle = (-degrees * Math.PI) / 180;
      const [x, y] = [middle + 1.2 * radius * Math.cos(angle), middle + 1.2 * radius * Math.sin(angle)];
      number ? context.lineTo(x, y) : context.moveTo(x, y);
    });
    return context.closePath();
  }

  paintSelected() {
    if (this.selected === null) return;
    const { context } = this;
    const { left, down, selected } = this;
    const side = Math.max(26, this.thumbnail);
    context.strokeStyle = this.ink;
    context.lineWidth = 1.2;
    context.beginPath();
    const neighbours = this.map.neighbours(this.selected).map((neighbour) => neighbour.image);
    for (const image of neighbours) {
      context.moveTo(left[selected], down[selected]);
      context.lineTo(left[image], down[image]);
    }
    context.stroke();
    for (const image of [...neighbours.reverse(), selected]) {
      const [x, y] = [left[image], down[image]];
      context.fillStyle = image === selected ? this.focus : this.ink;
      context.fillRect(x - side / 2 - 2.5, y - side / 2 - 2.5, side + 5, side + 5);
      this.map.group.draw(context, image, x - side / 2, y - side / 2, side);
    }
  }

  // Where Enter picks, while the keyboard has the map.
  paintMiddle() {
    if (!this.canvas.matches(":focus-visible")) return;
    const [x, y] = [this.width / 2, this.height / 2];
    this.context.strokeStyle = this.focus;
    this.context.lineWidth = 2;
    this.context.beginPath();
    this.context.arc(x, y, 9, 0, 7);
    this.context.stroke();
  }
};
