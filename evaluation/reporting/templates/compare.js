(() => {
  "use strict";

  function element(name, parent) {
    const created = document.createElement(name);
    parent.append(created);
    return created;
  }

  class Comparison {
    /* One article.image. `chosen` is the kind of image to the right of the edge, `against.value` the kind to its left. */
    constructor(article) {
      this.article = article;
      this.name = article.querySelector("h3").textContent;
      this.options = new Map();
      for (const label of article.querySelectorAll(".strip label")) this.options.set(label.querySelector("input").value, label);
      this.kinds = [...this.options.keys()];
      this.stage = article.querySelector(".stage");
      this.caption = article.querySelector(".caption");
      this.against = article.querySelector(".wipe select");
      this.range = article.querySelector(".wipe input");
      this.lower = element("img", this.stage);
      this.upper = element("img", this.stage);
      this.upper.className = "upper";
      this.upper.alt = "";
      this.edge = element("div", this.stage);
      this.edge.className = "edge";
      this.chosen = this.kinds.find((kind) => kind.startsWith("restoration")) ?? this.kinds[0];
      this.against.value = this.kinds.find((kind) => kind !== this.chosen) ?? this.chosen;
      this.listen();
      this.show(this.chosen);
      this.wipe(50);
      for (const shown of [this.stage, this.caption, article.querySelector(".enlarge")]) shown.hidden = false;
      article.querySelector(".strip").hidden = article.querySelector(".wipe").hidden = this.edge.hidden = this.upper.hidden = this.kinds.length < 2;
    }

    listen() {
      for (const label of this.options.values()) label.addEventListener("change", (event) => this.show(event.target.value));
      this.against.addEventListener("change", () => this.wipeWith(this.against.value));
      this.range.addEventListener("input", () => this.wipe(Number(this.range.value)));
      const enlarge = this.article.querySelector(".enlarge");
      enlarge.addEventListener("click", () => {
        const large = this.article.classList.toggle("large");
        enlarge.setAttribute("aria-pressed", String(large));
        this.article.scrollIntoView({ block: "nearest" });
      });
      this.stage.addEventListener("pointerdown", (event) => { this.stage.setPointerCapture(event.pointerId); this.drag(event); });
      this.stage.addEventListener("pointermove", (event) => { if (this.stage.hasPointerCapture(event.pointerId)) this.drag(event); });
    }

    drag(event) {
      const box = this.stage.getBoundingClientRect();
      this.wipe(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width)));
    }

    show(kind) {
      if (!this.options.has(kind)) return;
      if (kind === this.against.value && this.kinds.length > 1) this.against.value = this.chosen;  /* the two swap sides */
      this.chosen = kind;
      this.draw();
    }

    wipeWith(kind) {
      if (!this.options.has(kind)) return;
      this.against.value = kind;
      if (kind === this.chosen) this.chosen = this.left;
      this.draw();
    }

    draw() {
      const label = this.options.get(this.chosen);
      const title = (kind) => this.options.get(kind).querySelector(".name").textContent;
      this.left = this.against.value;
      label.querySelector("input").checked = true;
      this.put(this.lower, this.chosen);
      this.lower.alt = `${title(this.chosen)} of ${this.name}`;
      this.put(this.upper, this.left);
      this.article.querySelector(".right").textContent = title(this.chosen);
      const bold = document.createElement("b");
      bold.textContent = title(this.chosen);
      this.caption.replaceChildren(bold, ` ${label.dataset.scores}`);
      this.range.setAttribute("aria-label", `Compare ${title(this.left)} and ${title(this.chosen)}`);
    }

    put(image, kind) {
      const source = this.options.get(kind).querySelector("img");
      image.src = source.src;
      image.classList.toggle("pixelated", source.classList.contains("pixelated"));
    }

    wipe(percent) {
      this.range.value = String(percent);
      this.stage.style.setProperty("--at", `${percent}%`);
    }
  }

  const all = Array.from(document.querySelectorAll("article.image"), (article) => new Comparison(article));
  const bar = document.querySelector(".bar");
  if (bar) {
    bar.hidden = false;
    const on = (id, kind, act) => bar.querySelector(id).addEventListener(kind, (event) => all.forEach((one) => act(one, event.target.value)));
    on("#show-all", "change", (one, kind) => one.show(kind));
    on("#against-all", "change", (one, kind) => one.wipeWith(kind));
    const choices = bar.querySelectorAll("select");
    document.querySelector(".images").addEventListener("change", () => choices.forEach((choice) => { choice.value = ""; }));
    on("#wipe-all", "input", (one, percent) => one.wipe(Number(percent)));
  }
})();
