// What the page shows. Names from files are set as text, never as HTML.

const SHOWN = 5;
const TOLERANCE = 1e-4;

const element = (id) => document.getElementById(id);

function made(tag, text, name = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  if (name) node.className = name;
  return node;
}

/** Tell what is going on; screen readers read it out. */
export function announce(text) {
  element("status").textContent = text;
}

/** Tell what went wrong; an empty text takes it back. */
export function fail(text) {
  element("error").textContent = text;
  element("error").hidden = !text;
}

/** The five highest scores, as `{index, label, score, share, text}`. */
export function topFive(scores, labels) {
  const probabilities = Math.abs(scores.reduce((sum, each) => sum + each, 0) - 1) < 0.05 && scores.every((each) => each >= 0);
  const order = [...scores.keys()].sort((a, b) => scores[b] - scores[a] || a - b).slice(0, SHOWN);
  return order.map((index) => ({
    index,
    label: labels[index] ?? `class ${index}`,
    score: scores[index],
    share: probabilities ? scores[index] : 0, // scores that are no probabilities have no bars
    text: probabilities ? `${(100 * scores[index]).toFixed(1)}%` : scores[index].toFixed(3),
  }));
}

export function showClasses(found) {
  element("classes").replaceChildren(
    ...found.map(({ index, label, share, text }) => {
      const item = document.createElement("li");
      item.dataset.index = index;
      const bar = made("span", "", "bar");
      bar.style.width = `${100 * share}%`;
      const name = made("span", label, "label");
      name.dir = "auto";
      item.append(bar, name, made("span", text, "score"));
      return item;
    }),
  );
  element("result").hidden = false;
  element("result").scrollIntoView({ block: "nearest" }); // on a phone it is below the window
}

export function showLatency(text) {
  element("latency").textContent = text;
}

/** Compare all scores of the expected classes, and their order. */
export function showAgreement(scores, expected) {
  const difference = Math.max(...expected.map(({ index, score }) => Math.abs(scores[index] - score)));
  const order = [...scores.keys()].sort((a, b) => scores[b] - scores[a] || a - b).slice(0, expected.length);
  const same = order.every((index, place) => index === expected[place].index);
  const figure = difference.toPrecision(2);
  const node = element("agreement");
  const differs = order[0] !== expected[0].index;
  node.classList.toggle("differs", differs);
  if (differs) {
    node.textContent = `Differs from the expected answer, ${expected[0].label}: scores by up to ${figure}.`;
  } else if (difference <= TOLERANCE) {
    node.textContent = `Equal to the expected answer within ${TOLERANCE}: largest difference of a score ${figure}.`;
  } else {
    const what = same ? "five classes in the same order" : "first class";
    node.textContent = `The expected ${what}; scores differ by up to ${figure}, as they do where kernels round differently.`;
  }
  node.hidden = false;
}

/** Size of a file, as text. */
export function sizeText(bytes) {
  return bytes < 1e5 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** The table of files. */
export function showFiles(files, refusal) {
  element("files").replaceChildren(
    ...files.map((file) => {
      const row = document.createElement("tr");
      const agreement = file.agreement && `${(100 * file.agreement.fraction).toFixed(1)}% of ${file.agreement.samples} images`;
      const cells = [file.precision, sizeText(file.bytes), file.inputs[0].dtype, agreement ?? "not known", refusal(file) || "yes"];
      const name = made("th", file.file);
      name.scope = "row";
      row.append(name, ...cells.map((text) => made("td", text)));
      return row;
    }),
  );
}
