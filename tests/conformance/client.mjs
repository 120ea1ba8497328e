// What Sandrunner does with Modal, done by Modal's official JavaScript client: it must be content with the simulated
// Modal. The counterpart of `client.py`, after which it runs: its Secret is one that `creates.py` stored.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { AlreadyExistsError, ModalClient, NotFoundError } from "modal";

import { mark } from "./marks.mjs";

const APP = "sandrunner-conformance-js";
const VOLUME = "conformance-cache-js";

const manifest = fileURLToPath(new URL("../package.json", import.meta.resolve("modal")));
console.log(`modal ${JSON.parse(readFileSync(manifest, "utf8")).version}, node ${process.versions.node}`);
const modal = new ModalClient();
step("app");
const app = await modal.apps.fromName(APP, { createIfMissing: true });
step("app again");
equal("the App is found again", (await modal.apps.fromName(APP)).appId, app.appId);
step("image");
const image = await modal.images
  .fromRegistry("ubuntu:24.04")
  .dockerfileCommands(["RUN echo first"])
  .dockerfileCommands(["RUN echo second"])
  .build(app);
step("image by id");
equal("the image is found by its id", (await modal.images.fromId(image.imageId)).imageId, image.imageId);
step("volume");
const volume = await modal.volumes.fromName(VOLUME, { createIfMissing: true });
step("secret by name");
const secret = await modal.secrets.fromName("creates-one");
step("secret unknown");
await fails("an unknown Secret", NotFoundError, () => modal.secrets.fromName("none"));
await converse(undefined);
await converse("A100");
modal.close();

async function converse(gpu) {
  const kind = gpu ? `GPU ${gpu}` : "no GPU";
  const generation = gpu ? "v1" : "v2";
  const name = `conformance-${gpu ? "gpu" : "plain"}-1`;
  const tags = { origin: "conformance", kind: kind.replace(" ", "-") };
  const create = () =>
    modal.sandboxes.create(app, image, {
      command: ["sleep", "infinity"],
      name,
      tags,
      env: { GREETING: "hello" },
      timeoutMs: 3_600_000,
      cpu: 1.0,
      memoryMiB: 1024,
      regions: ["us-east"],
      gpu,
      volumes: { "/cache": volume },
      secrets: [secret],
    });
  const listed = async (wanted) => {
    const ids = [];
    for await (const sandbox of modal.sandboxes.list({ appId: app.appId, tags: wanted })) ids.push(sandbox.sandboxId);
    return ids;
  };

  step(`${generation} create`);
  const sandbox = await create();
  equal(`${kind}: the id has the form of its generation`, sandbox.sandboxId.length, "sb-".length + (gpu ? 22 : 26));
  step(`${generation} list`);
  await eventually(`${kind}: it is listed by its tags`, async () => same(await listed(tags), [sandbox.sandboxId]));
  equal(`${kind}: a tag it lacks excludes it`, await listed({ ...tags, more: "x" }), []);
  step(`${generation} tags get`);
  equal(`${kind}: it has the tags it was created with`, sorted(await sandbox.getTags()), sorted(tags));
  step(`${generation} tags set`);
  const changed = { ...tags, phase: "online" };
  await sandbox.setTags(changed);
  step(`${generation} tags changed`);
  equal(`${kind}: its tags can be set`, sorted(await sandbox.getTags()), sorted(changed));
  await eventually(`${kind}: the list knows the new tags`, async () =>
    same(await listed(changed), [sandbox.sandboxId]),
  );
  step(`${generation} poll`);
  equal(`${kind}: it runs`, await sandbox.poll(), null);
  step(`${generation} by name`);
  const found = await modal.sandboxes.fromName(APP, name);
  equal(`${kind}: it is found by its name`, found.sandboxId, sandbox.sandboxId);
  step(`${generation} by id`);
  equal(`${kind}: it is found by its id`, await (await modal.sandboxes.fromId(sandbox.sandboxId)).poll(), null);
  step(`${generation} name taken`);
  await fails(`${kind}: its name is taken`, AlreadyExistsError, create);

  step(`${generation} terminate`);
  await sandbox.terminate();
  step(`${generation} wait`);
  equal(`${kind}: it ends by that`, await sandbox.wait(), 137);
  step(`${generation} ended`);
  equal(`${kind}: it has been terminated`, await sandbox.poll(), 137);
  await eventually(`${kind}: it is no longer listed`, async () => same(await listed(tags), []));
  await fails(`${kind}: its name finds nothing`, NotFoundError, () => modal.sandboxes.fromName(APP, name));
  const ended = await modal.sandboxes.fromId(sandbox.sandboxId);
  equal(`${kind}: its id still tells how it ended`, await ended.poll(), 137);
  step(`${generation} successor`);
  const successor = await create();
  report(`${kind}: its name is free again`, successor.sandboxId !== sandbox.sandboxId, "found the same again");
  equal(`${kind}: the successor ends on request`, await successor.terminate({ wait: true }), 137);
}

function step(name) {
  mark({ step: name });
}

function sorted(tags) {
  return Object.entries(tags).sort();
}

function same(found, expected) {
  return JSON.stringify(found) === JSON.stringify(expected);
}

function equal(what, found, expected) {
  report(what, same(found, expected), `expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`);
}

async function fails(what, error, action) {
  try {
    const result = await action();
    report(what, false, `expected ${error.name}, found ${result}`);
  } catch (caught) {
    report(what, caught instanceof error, `expected ${error.name}, caught ${caught}`);
  }
}

// For lists, which may lag behind by some seconds.
async function eventually(what, condition) {
  const deadline = Date.now() + 30_000;
  let holds = await condition();
  while (!holds && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 200));
    holds = await condition();
  }
  report(what, holds, "not within 30 s");
}

function report(what, holds, otherwise) {
  console.log(`${holds ? "ok  " : "FAIL"} ${what}`);
  if (!holds) {
    console.error(`${what}: ${otherwise}`);
    process.exit(1);
  }
}
