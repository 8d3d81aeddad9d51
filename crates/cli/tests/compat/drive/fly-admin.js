// Drives the npm package fly-admin: BASE=http://… TOKEN=… node fly-admin.js
const Client = require(require.resolve('fly-admin').replace(/main\.js$/, 'client.js')).default
const { BASE, TOKEN } = process.env
const fly = new Client(TOKEN, { apiUrl: BASE, graphqlUrl: BASE })
const app_name = 'fly-admin-app'
let failed = 0

async function step(call, reads, f) {
  await fetch(BASE + '/__step', { method: 'POST', body: JSON.stringify({ call, reads }) })
  try {
    const answer = await f()
    console.log('ok    ', call, JSON.stringify(answer ?? null).slice(0, 80))
    return answer ?? {}
  } catch (error) {
    failed++
    console.log('FAILED', call, String(error).slice(0, 300))
    return {}
  }
}

const MACHINE = ['/id', '/name', '/state', '/region', '/instance_id', '/private_ip', '/config/image',
  '/image_ref/registry', '/image_ref/repository', '/image_ref/tag', '/image_ref/digest', '/created_at', '/events/0/type']
const VOLUME = ['/id', '/name', '/state', '/size_gb', '/region', '/zone', '/encrypted', '/created_at']

async function main() {
  await step('App.createApp', [], () => fly.App.createApp({ app_name, org_slug: 'personal' }))
  await step('App.listApps', ['/total_apps', '/apps/0/name', '/apps/0/machine_count', '/apps/0/network'], () => fly.App.listApps('personal'))
  await step('App.getApp', ['/name', '/status', '/organization/name', '/organization/slug'], () => fly.App.getApp(app_name))
  await step('App.getAppDetailed', ['/data/app/name', '/data/app/status', '/data/app/organization/slug', '/data/app/ipAddresses/nodes'], () => fly.App.getAppDetailed(app_name))
  const ip = await step('Network.allocateIpAddress', ['/data/allocateIpAddress/ipAddress/address', '/data/allocateIpAddress/ipAddress/type'],
    () => fly.Network.allocateIpAddress({ appId: app_name, type: 'v6' }))
  await step('Network.releaseIpAddress', ['/data/releaseIpAddress/app/name'],
    () => fly.Network.releaseIpAddress({ appId: app_name, ip: ip?.allocateIpAddress?.ipAddress?.address }))
  await step('Regions.getRegions', ['/data/platform/requestRegion', '/data/platform/regions/0/code', '/data/platform/regions/0/name'], () => fly.Regions.getRegions())
  await step('Organization.getOrganization', ['/data/organization/id', '/data/organization/slug', '/data/organization/name', '/data/organization/type', '/data/organization/viewerRole'],
    () => fly.Organization.getOrganization('personal'))
  await step('Secret.setSecrets', ['/data/setSecrets'], () => fly.Secret.setSecrets({ appId: app_name, secrets: [{ key: 'A', value: 'b' }] }))
  await step('Secret.unsetSecrets', ['/data/unsetSecrets'], () => fly.Secret.unsetSecrets({ appId: app_name, keys: ['A'] }))
  const { id: volume_id } = await step('Volume.createVolume', VOLUME, () => fly.Volume.createVolume({ app_name, name: 'data', region: 'iad', size_gb: 1 }))
  await step('Volume.listVolumes', ['/0/id'], () => fly.Volume.listVolumes(app_name))
  await step('Volume.getVolume', VOLUME, () => fly.Volume.getVolume({ app_name, volume_id }))
  await step('Volume.extendVolume', ['/needs_restart', '/volume/size_gb'], () => fly.Volume.extendVolume({ app_name, volume_id, size_gb: 2 }))
  await step('Volume.listSnapshots', [], () => fly.Volume.listSnapshots({ app_name, volume_id }))
  const made = await step('Machine.createMachine', MACHINE, () => fly.Machine.createMachine({
    app_name,
    name: 'one',
    region: 'iad',
    config: {
      image: 'shell',
      init: { cmd: ['/testapp', 'serve'] },
      guest: { cpu_kind: 'shared', cpus: 1, memory_mb: 256 },
      services: [{ ports: [{ port: 80, handlers: ['http'] }], protocol: 'tcp', internal_port: 8080 }],
      checks: { httpget: { type: 'http', port: 8080, method: 'GET', path: '/', interval: '15s', timeout: '10s' } },
    },
  }))
  const id = { app_name, machine_id: made.id }
  await step('Machine.waitMachine', ['/ok'], () => fly.Machine.waitMachine({ ...id, state: 'started', timeout: '30s', instance_id: made.instance_id }))
  await step('Machine.listMachines', ['/0/id', '/0/config/guest/cpus'], () => fly.Machine.listMachines(app_name))
  await step('Machine.listMachines', ['/0/id'], () => fly.Machine.listMachines({ app_name, region: 'iad', include_deleted: '' }))
  await step('Machine.getMachine', MACHINE, () => fly.Machine.getMachine(id))
  await step('Machine.listEvents', ['/0/id', '/0/type', '/0/status', '/0/source', '/0/timestamp'], () => fly.Machine.listEvents(id))
  await step('Machine.listVersions', ['/0/version', '/0/user_config/image'], () => fly.Machine.listVersions(id))
  await step('Machine.listProcesses', ['/0/pid', '/0/command'], () => fly.Machine.listProcesses({ ...id, sort_by: 'pid', order: 'asc' }))
  await step('Machine.acquireLease', ['/status', '/data/nonce', '/data/expires_at', '/data/owner', '/data/description'], () => fly.Machine.acquireLease({ ...id, ttl: 1, description: 'x' }))
  await step('Machine.getLease', ['/data/nonce'], () => fly.Machine.getLease(id))
  const ask = path => fetch(`${BASE}/v1/apps/${app_name}/machines/${made.id}/${path}`, { headers: { authorization: `Bearer ${TOKEN}`, 'x-driver': '1' } })
  // There is no releaseLease in this package: it ends by itself.
  while ((await ask('lease')).ok) await new Promise(r => setTimeout(r, 100))
  await step('Machine.cordonMachine', ['/ok'], () => fly.Machine.cordonMachine(id))
  await step('Machine.uncordonMachine', ['/ok'], () => fly.Machine.uncordonMachine(id))
  await step('Machine.updateMachine', MACHINE, () => fly.Machine.updateMachine({ ...id, config: { image: 'shell', env: { A: 'b' } } }))
  await step('Machine.waitMachine', ['/ok'], () => fly.Machine.waitMachine({ ...id, state: 'started' }))
  await step('Machine.restartMachine', ['/ok'], () => fly.Machine.restartMachine({ ...id, timeout: '10s' }))
  await ask('wait?state=started')
  await step('Machine.signalMachine', ['/ok'], () => fly.Machine.signalMachine({ ...id, signal: 'SIGUSR1' }))
  await step('Machine.stopMachine', ['/ok'], () => fly.Machine.stopMachine({ ...id, timeout: '2s' }))
  await step('Machine.waitMachine', ['/ok'], () => fly.Machine.waitMachine({ ...id, state: 'stopped', timeout: '20s' }))
  await step('Machine.startMachine', ['/previous_state'], () => fly.Machine.startMachine(id))
  await step('Machine.waitMachine', ['/ok'], () => fly.Machine.waitMachine({ ...id, state: 'started' }))
  await step('Machine.deleteMachine', ['/ok'], () => fly.Machine.deleteMachine({ ...id, force: true }))
  await step('Volume.deleteVolume', ['/id', '/state'], () => fly.Volume.deleteVolume({ app_name, volume_id }))
  await step('App.deleteApp', [], () => fly.App.deleteApp(app_name))
  process.exit(failed ? 1 : 0)
}
main()
