// Where the names of points go so that they can be read: as reports/label_layout.cc does it.
const LABEL = { marker: 9, gap: 2, near: 19, step: 4 };
const LABEL_DISTANCES = [12, 19, 30, 44, 60, 80, 104, 132, 164, 200, 240];
const LABEL_DIRECTIONS = [[1, 0], [-1, 0], [0.71, -0.71], [-0.71, -0.71], [0.71, 0.71], [-0.71, 0.71], [0, -1], [0, 1]];

const boxAround = (x, y, half) => ({ left: x - half, top: y - half, right: x + half, bottom: y + half });

function boxOverlap(a, b) {
  const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  return width > 0 && height > 0 ? width * height : 0;
}

function labelCandidate(point, [dx, dy], distance) {
  const lineX = point.x + dx * distance, lineY = point.y + dy * distance;
  const left = dx > 0 ? lineX : dx < 0 ? lineX - point.width : lineX - point.width / 2;
  const top = dx !== 0 ? lineY - point.height / 2 : dy < 0 ? lineY - point.height : lineY;
  return { left, top, right: left + point.width, bottom: top + point.height, lineX, lineY, joined: distance > LABEL.near, dx, dy };
}

function lineBoxes(point, label) {
  const boxes = [];
  const length = Math.hypot(label.lineX - point.x, label.lineY - point.y);
  for (let at = LABEL.marker + LABEL.step; at < length - 1; at += LABEL.step)
    boxes.push(boxAround(point.x + ((label.lineX - point.x) * at) / length, point.y + ((label.lineY - point.y) * at) / length, 1));
  return boxes;
}

function labelCost(point, label, taken, area) {
  const outside = Math.max(0, area.left - label.left) + Math.max(0, label.right - area.right)
    + Math.max(0, area.top - label.top) + Math.max(0, label.bottom - area.bottom);
  const padded = { left: label.left - LABEL.gap, top: label.top - LABEL.gap, right: label.right + LABEL.gap, bottom: label.bottom + LABEL.gap };
  let cost = 1e4 * outside;
  for (const box of taken) cost += boxOverlap(padded, box);
  for (const step of lineBoxes(point, label)) for (const box of taken) cost += boxOverlap(step, box);
  return cost;
}

// points: [{x, y, width, height}] in pixels, y downwards; taken: boxes that labels keep off.
function placeLabels(points, area, taken) {
  const used = [...taken, ...points.map((point) => boxAround(point.x, point.y, LABEL.marker))];
  return points.map((point) => {
    let best = null, least = Infinity;
    for (const distance of LABEL_DISTANCES) {
      for (const direction of LABEL_DIRECTIONS) {
        const label = labelCandidate(point, direction, distance);
        const cost = labelCost(point, label, used, area);
        if (cost < least) { least = cost; best = label; }
      }
      if (least <= 0) break;
    }
    used.push(best, ...lineBoxes(point, best));
    return best;
  });
}
