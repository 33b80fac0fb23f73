"use strict";
// Shows one case of the page's data at a time with NiiVue, and keeps a still picture of it for paper.
(async () => {
  const part = name => document.getElementById(`viewer-${name}`);
  const cases = JSON.parse(part("data").textContent);
  const canvas = part("canvas"), still = part("still"), said = part("said");
  const labels = JSON.parse(canvas.dataset.labels);
  let shown = 0;

  const keepStill = () => {
    nv.drawScene(); // in the same task: afterwards a browser may empty the canvas
    still.src = canvas.toDataURL("image/png");
  };

  const load = (base64, name) => niivue.NVImage.loadFromBase64({ base64, name, colormap: "gray", cal_min: 0, cal_max: 255 });

  const show = async () => {
    const mine = ++shown;
    const one = cases[part("case").value], scan = part("scan").value, mask = part("mask").value;
    const volumes = [await load(one.volumes[scan], "scan.nii.gz")];
    if (mask) {
      const overlay = await load(one.volumes[mask], "mask.nii.gz");
      overlay.setColormapLabel(labels);
      overlay.opacity = 0.55;
      volumes.push(overlay);
    }
    if (mine !== shown) return; // another choice was made while this one was read
    while (nv.volumes.length) nv.removeVolume(nv.volumes[0]);
    for (const volume of volumes) nv.addVolume(volume);
    nv.scene.crosshairPos = nv.mm2frac(one.centre_mm);
    nv.updateGLVolume();
    keepStill();
    const masks = { "": "no mask", reference: "reference", prediction: "prediction" };
    still.alt = `${one.title}: ${scan} with ${masks[mask]}`;
    part("shown").textContent = still.alt;
    canvas.setAttribute("aria-label", still.alt);
    said.textContent = "";
  };

  let nv;
  try {
    nv = new niivue.Niivue({
      isRadiologicalConvention: true, // the patient's right on the left, as in the pictures
      backColor: [0, 0, 0, 1],
      multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS,
      crosshairWidth: 0.25,
      crosshairColor: [1, 1, 1, 0.6],
      dragAndDropEnabled: false,
      logLevel: "error",
    });
    await nv.attachToCanvas(canvas);
    nv.setSliceType(nv.sliceTypeMultiplanar);
    await show();
  } catch (error) {
    said.textContent = `This browser cannot show it (${error.message}): the view needs WebGL 2.`;
    return;
  }
  for (const name of ["case", "scan", "mask"]) part(name).addEventListener("change", show);
  addEventListener("beforeprint", keepStill);
})();
