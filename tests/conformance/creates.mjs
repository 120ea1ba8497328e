// The definitions of `creates.py`, after which it runs, created by Modal's official JavaScript client.

import { ModalClient } from "modal";

import { mark } from "./marks.mjs";

const modal = new ModalClient();
const app = await modal.apps.fromName("sandrunner-creates-js", { createIfMissing: true });
const image = await modal.images.fromRegistry("ubuntu:24.04").build(app);
const cache = await modal.volumes.fromName("creates-cache-js", { createIfMissing: true });
const tools = await modal.volumes.fromName("creates-tools-js", { createIfMissing: true });
const one = await modal.secrets.fromName("creates-one");
const two = await modal.secrets.fromName("creates-two");
mark({
  ids: {
    app: app.appId,
    image: image.imageId,
    cache: cache.volumeId,
    tools: tools.volumeId,
    one: one.secretId,
    two: two.secretId,
  },
});

const env = { env: { GREETING: "hello" } };
const volumes = { volumes: { "/cache": cache, "/opt/tools": tools.withMountOptions({ readOnly: true }) } };
const cidrs = { outboundCidrAllowlist: ["140.82.112.0/20", "185.199.108.0/22"] };
const domains = { outboundDomainAllowlist: ["github.com", "*.actions.githubusercontent.com"] };
const limits = { cpu: 1.5, cpuLimit: 4.0, memoryMiB: 2048, memoryLimitMiB: 4096 };
const all = { ...limits, ...volumes, ...cidrs, ...domains, secrets: [one, two], regions: ["us-east"] };
const definitions = {
  plain: env,
  "no-environment": {},
  longest: { ...env, timeoutMs: 86_400_000 },
  fraction: { ...env, cpu: 1.001, memoryMiB: 1000 },
  limits: { ...env, ...limits },
  regions: { ...env, regions: ["us-east", "eu-west"] },
  volumes: { ...env, ...volumes },
  cidrs: { ...env, ...cidrs },
  domains: { ...env, ...domains },
  "cidrs-and-domains": { ...env, ...cidrs, ...domains },
  secrets: { ...env, secrets: [two, one] },
  "secrets-alone": { secrets: [one] },
  workdir: { ...env, workdir: "/srv/job" },
  docker: { ...env, experimentalOptions: { enable_docker: true } },
  gvisor: { ...env, runtime: "gvisor" },
  vm: { ...env, runtime: "vm" },
  gpu: { gpu: "A100-80GB", secrets: [one] },
  gpus: { gpu: "h100:2", secrets: [two, one] },
  everything: { ...env, ...all, workdir: "/srv/job", runtime: "vm" },
  "everything-gpu": { ...all, gpu: "T4", workdir: "/srv/job", runtime: "gvisor" },
};
for (const [name, definition] of Object.entries(definitions)) {
  mark({ create: name });
  const sandbox = await modal.sandboxes.create(app, image, {
    command: ["/bin/bash", "-c", "true"],
    name: `creates-${name}`,
    tags: { deployment: "main", job: "7" },
    timeoutMs: 3_600_000,
    cpu: 2.0,
    memoryMiB: 4096,
    ...definition,
  });
  await sandbox.terminate();
}
modal.close();
console.log(`ok   ${Object.keys(definitions).length} definitions are created`);
