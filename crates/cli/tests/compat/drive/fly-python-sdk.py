"""Drives the Python package fly-python-sdk: BASE=http://… TOKEN=… python fly-python-sdk.py"""

import asyncio
import os
import sys

import httpx
from fly_python_sdk.fly import api

BASE, TOKEN = os.environ["BASE"], os.environ["TOKEN"]
# The address is not to be set from outside.
api.FlyApi.__init__.__defaults__ = (*api.FlyApi.__init__.__defaults__[:2], BASE)

from fly_python_sdk.fly import Fly  # noqa: E402
from fly_python_sdk.models import machine as models  # noqa: E402

APP = "fly-python-app"
MACHINE = ["/id", "/config/image", "/image_ref/registry", "/image_ref/repository", "/image_ref/tag", "/image_ref/digest", "/created_at"]
failed = []


async def step(call, reads, future):
    httpx.post(f"{BASE}/__step", json={"call": call, "reads": reads})
    try:
        answer = await future
        print("ok    ", call, str(answer)[:80])
        return answer
    except Exception as error:  # noqa: BLE001
        failed.append(call)
        print("FAILED", call, repr(error)[:300])


async def main():
    org = Fly(TOKEN).Org("personal")
    await step("Org.create_app", [], org.create_app(APP))
    await step("Org.list_apps", ["/apps/0/machine_count", "/apps/0/name", "/apps/0/network"], org.list_apps())
    app = org.App(APP)
    await step("App.inspect", ["/name", "/organization/name", "/organization/slug", "/status"], app.inspect())
    config = models.FlyMachineConfig(
        image="shell",
        init=models.FlyMachineConfigInit(),
        guest=models.FlyMachineConfigGuest(cpu_kind="shared"),
        restart=models.FlyMachineConfigRestart(policy="always"),
        metadata={"role": "one"},
        checks={
            "web": models.FlyMachineConfigHttpCheck(port=8080, interval="15s", timeout="10s", path="/"),
            "port": models.FlyMachineConfigTcpCheck(port=8080, interval=15_000_000_000, timeout=2_000_000_000),
        },
    )
    one = models.FlyMachine(name="one", region="iad", config=config)
    made = await step("App.create_machine", MACHINE, app.create_machine(one))
    bare = models.FlyMachine(config=models.FlyMachineConfig(image="shell"))
    await step("App.create_machines", MACHINE, app.create_machines([bare]))
    await step("App.list_machines", ["/0/config/image", "/1/id"], app.list_machines())
    machine = app.Machine(made.id)
    await step("Machine.inspect", MACHINE, machine.inspect())
    await step("Machine.get_events", ["/0/id", "/0/source", "/0/status", "/0/timestamp", "/0/type"], machine.get_events())
    # One that is on its way cannot be started.
    ready = {"authorization": f"Bearer {TOKEN}", "x-driver": "1"}
    httpx.get(f"{BASE}/v1/apps/{APP}/machines/{made.id}/wait?state=started", headers=ready, timeout=70)
    await step("Machine.start", [], machine.start())
    await step("Machine.clone", MACHINE, machine.clone(name="two", region="gru"))
    ids = await step("App.list_machines", ["/0/config/image"], app.list_machines(ids_only=True))
    for id in ids:
        # Its own stop() calls a method that the package does not have.
        await step("Machine.stop", ["/ok"], machine._make_api_post_request(f"apps/{APP}/machines/{id}/stop"))
        await step("wait", ["/ok"], machine._make_api_get_request(f"apps/{APP}/machines/{id}/wait?state=stopped&timeout=30"))
    await step("App.destroy_machines", ["/ok"], app.destroy_machines(ids))
    await step("App.delete", [], app.delete())


asyncio.run(main())
sys.exit(1 if failed else 0)
