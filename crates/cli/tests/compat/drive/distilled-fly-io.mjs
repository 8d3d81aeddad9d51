// Drives the npm package @distilled.cloud/fly-io, which checks each answer against schemas made from
// Fly's API document: BASE=http://… TOKEN=… node distilled-fly-io.mjs
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import * as Redacted from "effect/Redacted";
import * as FetchHttpClient from "effect/unstable/http/FetchHttpClient";
import * as Op from "@distilled.cloud/fly-io/Operations";
import { Credentials } from "@distilled.cloud/fly-io/Credentials";
const live = Layer.mergeAll(FetchHttpClient.layer, Layer.succeed(Credentials, { apiKey: Redacted.make(process.env.TOKEN), apiBaseUrl: process.env.BASE + "/v1" }));
const app_name = "distilled-app";
let bad = 0;
async function step(name, input) {
  await fetch(process.env.BASE + "/__step", { method: "POST", body: JSON.stringify({ call: name, reads: [] }) });
  try {
    const r = await Effect.runPromise(Op[name](input).pipe(Effect.provide(live), Effect.timeout("70 seconds")));
    console.log("ok    ", name, JSON.stringify(r ?? null).slice(0, 90)); return r;
  } catch (e) { bad++; console.log("FAILED", name, String(e?._tag ?? ""), String(e?.message ?? e).slice(0, 400), e?.cause ? String(e.cause).slice(0, 300) : ""); }
}
await step("AppsCreate", { name: app_name, org_slug: "personal" });
await step("AppsList", { org_slug: "personal" });
await step("AppsShow", { app_name });
await step("AppCreateDeployToken", { app_name, expiry: "1h" });
// CurrentTokenShow asks for /v1/v1/tokens/current, and secret keys are not offered by Hangar.
await step("PlatformRegionsGet", {});
await step("PlatformPlacementsPost", { org_slug: "personal", region: "iad,ams", count: 2, compute: { cpu_kind: "shared", cpus: 1, memory_mb: 256 } });
await step("SecretsUpdate", { app_name, values: { A: "1", B: "2" } });
await step("SecretCreate", { app_name, secret_name: "C", value: "3" });
await step("SecretsList", { app_name });
await step("SecretGet", { app_name, secret_name: "C" });
await step("SecretDelete", { app_name, secret_name: "C" });
await step("AppIPAssignmentsCreate", { app_name, type: "v6" });
const ips = await step("AppIPAssignmentsList", { app_name });
if (ips?.ips?.[0]) await step("AppIPAssignmentsDelete", { app_name, ip: ips.ips[0].ip });
await step("AppCertificatesList", { app_name });
const v = await step("VolumesCreate", { app_name, name: "data", region: "iad", size_gb: 1 });
const volume_id = v?.id;
await step("VolumesList", { app_name });
await step("VolumesGetById", { app_name, volume_id });
await step("VolumesUpdate", { app_name, volume_id, snapshot_retention: 7, auto_backup_enabled: false });
await step("VolumesExtend", { app_name, volume_id, size_gb: 2 });
await step("createVolumeSnapshot", { app_name, volume_id });
await step("VolumesListSnapshots", { app_name, volume_id });
const m = await step("MachinesCreate", { app_name, name: "one", region: "iad", config: { image: "shell", init: { cmd: ["/testapp", "serve"] }, env: { A: "b" }, guest: { cpu_kind: "shared", cpus: 1, memory_mb: 256 }, mounts: [{ volume: volume_id, path: "/data" }], services: [{ protocol: "tcp", internal_port: 8080, ports: [{ port: 80, handlers: ["http"] }] }], checks: { web: { type: "http", port: 8080, path: "/", interval: "5s", timeout: "2s" } }, restart: { policy: "on-failure", max_retries: 3 } } });
const machine_id = m?.id, id = { app_name, machine_id };
await step("MachinesWait", { ...id, state: "started", timeout: 30 });
await step("MachinesList", { app_name });
await step("MachinesList", { app_name, summary: true, region: "iad", state: "started,stopped", include_deleted: false });
await step("MachinesOrgList", { org_slug: "personal" });
await step("VolumesOrgList", { org_slug: "personal" });
await step("MachinesShow", id);
await step("MachinesListEvents", { ...id, limit: 5 });
await step("MachinesListVersions", id);
await step("MachinesListProcesses", id);
await step("MachinesGetMemory", id);
await step("MachinesExec", { ...id, command: ["/bin/cat", "/proc/version"], timeout: 10 });
await step("MachinesShowMetadata", id);
await step("MachinesUpsertMetadata", { ...id, key: "k", value: "v" });
await step("MachinesGetMetadataKey", { ...id, key: "k" });
await step("MachinesUpdateMetadata", { ...id, metadata: { x: "y" } });
await step("MachinesDeleteMetadata", { ...id, key: "k" });
await step("MachinesCreateLease", { ...id, ttl: 1, description: "d" });
await step("MachinesShowLease", id);
// It does not send the nonce with which a lease is given back: this one ends by itself.
const lease = `${process.env.BASE}/v1/apps/${app_name}/machines/${machine_id}/lease`;
const headers = { authorization: `Bearer ${process.env.TOKEN}`, "x-driver": "1" };
while ((await fetch(lease, { headers })).ok) await new Promise((wait) => setTimeout(wait, 100));
await step("MachinesCordon", id); await step("MachinesUncordon", id);
await step("MachinesUpdate", { ...id, config: { image: "shell", init: { cmd: ["/testapp", "serve"] }, env: { A: "c" }, mounts: [{ volume: volume_id, path: "/data" }] } });
await step("MachinesWait", { ...id, state: "started", timeout: 30 });
await step("MachinesRestart", { ...id, timeout: "5s" });
await step("MachinesWait", { ...id, state: "started", timeout: 30 });
await step("MachinesSignal", { ...id, signal: "SIGUSR1" });
await step("MachinesStop", { ...id, signal: "SIGTERM", timeout: "2s" });
await step("MachinesWait", { ...id, state: "stopped", timeout: 30 });
await step("MachinesStart", id);
await step("MachinesWait", { ...id, state: "started", timeout: 30 });
await step("MachinesSuspend", id);
await step("MachinesWait", { ...id, state: "suspended", timeout: 30 });
await step("MachinesDelete", { ...id, force: true });
await step("MachinesWait", { ...id, state: "destroyed", timeout: 30 });
await step("VolumeDelete", { app_name, volume_id });
await step("AppsDelete", { app_name });
process.exit(bad ? 1 : 0);
