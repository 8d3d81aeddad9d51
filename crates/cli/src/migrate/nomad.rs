//! Nomad jobs, as `nomad job inspect` and `nomad job run -output` print them: task groups become
//! process groups, one task a Machine.

mod network;
mod task;
#[cfg(test)]
mod tests;

use hangar_api::machine::Schedule;
use serde_json::{Map, Value};

use super::service::{Service, apps};
use super::value::{self, fraction, number, table, text, texts};
use super::{Converted, Unreadable, app_name, cron};

/// Keys of a job that are read, or that say nothing of what runs: bookkeeping of Nomad's own.
const JOB: [&str; 32] = [
    "ID",
    "Name",
    "Type",
    "Region",
    "Datacenters",
    "TaskGroups",
    "Update",
    "Periodic",
    "Constraints",
    "Namespace",
    "Priority",
    "Status",
    "StatusDescription",
    "Stable",
    "Version",
    "SubmitTime",
    "CreateIndex",
    "ModifyIndex",
    "JobModifyIndex",
    "Stop",
    "ParentID",
    "Dispatched",
    "NomadTokenID",
    "VaultNamespace",
    "ConsulNamespace",
    "NodePool",
    "Reschedule",
    "Migrate",
    "UI",
    "VersionTag",
    "Payload",
    "ConsulToken",
];
/// Keys of a task group, in the same way. Where and when Machines are moved is Hangar's to decide.
const GROUP: [&str; 17] = [
    "Name",
    "Count",
    "Tasks",
    "Constraints",
    "RestartPolicy",
    "Networks",
    "Services",
    "Volumes",
    "Update",
    "ReschedulePolicy",
    "Migrate",
    "EphemeralDisk",
    "StopAfterClientDisconnect",
    "MaxClientDisconnect",
    "PreventRescheduleOnLost",
    "Disconnect",
    "ShutdownDelay",
];
/// Where a deploy waits so long unless told otherwise.
const DEFAULT_WAIT: u64 = 300;

/// Makes fly.tomls of a job; `regions` are those that there are, which datacenters may be called by.
pub(crate) fn convert(text_of_job: &str, regions: &[&str]) -> Result<Converted, Unreadable> {
    let json: Value = serde_json::from_str(text_of_job).map_err(|error| {
        Unreadable(format!(
            "it is no JSON ({error}): print the job with `nomad job inspect NAME`, or a file with `nomad job run -output FILE`"
        ))
    })?;
    let job = table(json.get("Job").unwrap_or(&json));
    let none = Value::Null;
    let get = |key: &str| job.get(key).unwrap_or(&none);
    let name = text(get("Name"))
        .or_else(|| text(get("ID")))
        .unwrap_or_default();
    let groups = get("TaskGroups").as_array().cloned().unwrap_or_default();
    if groups.is_empty() {
        return Err(Unreadable("it holds no job with task groups".to_owned()));
    }
    let mut out = Converted::default();
    others("Job", job, &JOB, &mut out);
    let kind = text(get("Type")).unwrap_or_else(|| "service".to_owned());
    say_kind(&kind, &mut out);
    let schedule = periodic(table(get("Periodic")), &mut out);
    let mut services = Vec::new();
    let places = places(job, regions, &mut out);
    for group in &groups {
        let own = own_places(group, &places, regions, &mut out);
        let mut made = group_of(table(group), &kind, &mut out);
        for service in &mut made {
            service.regions.clone_from(&own);
        }
        services.extend(made);
    }
    // A group is called by its own name; that of its app alone would say no more.
    let project = app_name(&name).unwrap_or_else(|| "app".to_owned());
    apps(services, &project, &mut out);
    let mut mounted = Vec::new();
    for app in &mut out.apps {
        let own = app.pools.values().flatten();
        app.draft.primary_region = places.iter().chain(own).next().cloned();
        app.regions.clone_from(&places);
        app.with_formation = true;
        app.draft.machine_config =
            schedule.map(|schedule| format!("{{\"schedule\":\"{schedule}\"}}"));
        update(&mut app.draft.deploy, job, &groups);
        if !app.draft.mounts.is_empty() && app.draft.deploy.strategy.is_some() {
            app.draft.deploy.strategy = None;
            mounted.push(app.draft.app.clone());
        }
    }
    for name in mounted {
        out.note(
            "Update.Canary",
            format!(
                "{name} has volumes, and two versions cannot share one: it is deployed by rolling"
            ),
        );
    }
    Ok(out)
}

/// Notes the keys that are not among those that are read.
fn others(at: &str, map: &Map<String, Value>, read: &[&str], out: &mut Converted) {
    for (key, value) in map {
        if value::is_empty(value) || read.contains(&key.as_str()) {
            continue;
        }
        let text = match key.as_str() {
            "Affinities" | "Spreads" => {
                "Machines are spread evenly over the regions of the formation"
            }
            "Vault" => "set what it reads by `hangar secrets set`",
            "Meta" => "write it into [env]: there is no NOMAD_META_ here",
            "Multiregion" => "say regions with `hangar regions set`",
            "ParameterizedJob" => {
                "jobs that are dispatched are not offered: run a command by `hangar machine exec`"
            }
            "Scaling" | "ScalingPolicies" => {
                "counts are set by `hangar scale count`: nothing scales by itself"
            }
            "Templates" => {
                "files from templates are not written: put them into the image, [[files]] or secrets"
            }
            "Artifacts" => "nothing is downloaded before a start: put it into the image",
            "Devices" => "devices of a host are not offered",
            "User" => "set USER in the Dockerfile",
            "Connect" | "Consul" => {
                "there is no Consul: apps reach each other by their .internal names"
            }
            _ => "has no counterpart here",
        };
        out.note(format!("{at}.{key}"), text);
    }
}

fn say_kind(kind: &str, out: &mut Converted) {
    match kind {
        "batch" => out.note(
            "Job.Type",
            "batch: a deploy starts it once; a Machine whose program ends well stays stopped, and `hangar machine start` runs it again",
        ),
        "system" | "sysbatch" => out.note(
            "Job.Type",
            format!("{kind}: one on each host is not offered; set a count with `hangar scale count`"),
        ),
        _ => {}
    }
}

/// Returns the schedule of a job that runs hourly, daily, weekly or monthly; every other one is told.
fn periodic(periodic: &Map<String, Value>, out: &mut Converted) -> Option<Schedule> {
    let none = Value::Null;
    let get = |key: &str| periodic.get(key).unwrap_or(&none);
    if get("Enabled") == &Value::Bool(false) || periodic.is_empty() {
        return None;
    }
    let mut specs = texts(get("Specs"));
    specs.extend(text(get("Spec")));
    specs.retain(|spec| !spec.is_empty());
    let schedule = match specs.as_slice() {
        [one] => cron::schedule(one),
        _ => None,
    };
    let said = specs.join(", ");
    out.note(
        "Job.Periodic",
        match schedule {
            Some(schedule) => format!(
                "{said:?} becomes {schedule}, counted from the first start, which is the deploy; a run that still goes on is not joined by another"
            ),
            None => format!(
                "{said:?} is not carried over: schedules are hourly, daily, weekly or monthly; run a scheduler in a process group of its own"
            ),
        },
    );
    schedule
}

/// Returns the services of a task group: one a task, the main one by the group's name.
fn group_of(group: &Map<String, Value>, kind: &str, out: &mut Converted) -> Vec<Service> {
    let none = Value::Null;
    let get = |key: &str| group.get(key).unwrap_or(&none);
    let name = text(get("Name")).unwrap_or_else(|| "app".to_owned());
    let at = format!("Group {name}");
    others(&at, group, &GROUP, out);
    let tasks: Vec<&Map<String, Value>> = get("Tasks")
        .as_array()
        .into_iter()
        .flatten()
        .map(table)
        .collect();
    let stays = |task: &&Map<String, Value>| {
        let lifecycle = task.get("Lifecycle").unwrap_or(&none);
        lifecycle.is_null() || lifecycle["Hook"] == "poststart" || lifecycle["Sidecar"] == true
    };
    let plain = |task: &&Map<String, Value>| task.get("Lifecycle").is_none_or(Value::is_null);
    let leads = |task: &&Map<String, Value>| task.get("Leader") == Some(&Value::Bool(true));
    let main = tasks
        .iter()
        .position(leads)
        .or_else(|| tasks.iter().position(plain))
        .unwrap_or(0);
    let ports = network::ports(group, tasks.get(main).copied(), out, &at);
    let mut services = Vec::new();
    for (index, task) in tasks.iter().enumerate() {
        let task_name = task.get("Name").and_then(text).unwrap_or_default();
        let at = format!("{at} task {task_name}");
        if !stays(task) {
            let hook = text(&task["Lifecycle"]["Hook"]).unwrap_or_default();
            out.note(at, format!("runs at {hook}, and Machines run one program: if it prepares a release, make it [deploy] release_command"));
            continue;
        }
        let own = if index == main {
            name.clone()
        } else {
            format!("{name}-{task_name}")
        };
        let mut service = task::read(&own, &at, task, group, &ports, out);
        service.restart = Some(restart(kind, table(get("RestartPolicy"))));
        service.replicas = number(get("Count")).or(Some(1));
        if index == main {
            network::services(group, Some(task), &ports, &mut service, out);
        } else {
            out.note(at, format!("becomes the process group {own}, in Machines of its own: it does not share localhost and files with {name}"));
            network::services(&Map::new(), Some(task), &ports, &mut service, out);
        }
        services.push(service);
    }
    services
}

/// Nomad starts a service again whatever its code, and a batch job after a failure.
fn restart(kind: &str, policy: &Map<String, Value>) -> super::draft::Restart {
    let tries = policy.get("Attempts").and_then(number);
    if ["batch", "sysbatch"].contains(&kind) {
        return super::draft::Restart {
            policy: if tries == Some(0) {
                "never"
            } else {
                "on-failure"
            }
            .to_owned(),
            retries: tries.filter(|n| *n > 0),
            processes: Vec::new(),
        };
    }
    super::draft::Restart {
        policy: "always".to_owned(),
        ..super::draft::Restart::default()
    }
}

/// Returns the regions that the job's datacenters and constraints name.
fn places(job: &Map<String, Value>, regions: &[&str], out: &mut Converted) -> Vec<String> {
    let none = Value::Null;
    let mut found = Vec::new();
    for name in texts(job.get("Datacenters").unwrap_or(&none)) {
        take(&name, "Job.Datacenters", regions, &mut found, out);
    }
    if let Some(name) = job.get("Region").and_then(text) {
        take(&name, "Job.Region", regions, &mut found, out);
    }
    constrained(job.get("Constraints"), regions, &mut found, out);
    found
}

/// Returns the regions that a group's own constraints leave it, of those of the job where both say
/// something; none where it says nothing of its own.
fn own_places(
    group: &Value,
    of_job: &[String],
    regions: &[&str],
    out: &mut Converted,
) -> Vec<String> {
    let mut found = Vec::new();
    let tasks = group["Tasks"].as_array().into_iter().flatten();
    let lists = std::iter::once(&group["Constraints"]).chain(tasks.map(|t| &t["Constraints"]));
    for list in lists {
        constrained(Some(list), regions, &mut found, out);
    }
    let both: Vec<String> = found
        .iter()
        .filter(|r| of_job.contains(r))
        .cloned()
        .collect();
    if both.is_empty() { found } else { both }
}

/// Takes the name of a region, or says that there is none of that name.
fn take(name: &str, at: &str, regions: &[&str], found: &mut Vec<String>, out: &mut Converted) {
    let code = name.to_ascii_lowercase();
    if regions.contains(&code.as_str()) {
        if !found.contains(&code) {
            found.push(code);
        }
    } else if !["*", "global", "dc1"].contains(&code.as_str()) {
        out.note(
            at,
            format!(
                "{name} is no region here: say where with primary_region and `hangar regions set`"
            ),
        );
    }
}

/// Takes the regions that a list of constraints names.
fn constrained(
    list: Option<&Value>,
    regions: &[&str],
    found: &mut Vec<String>,
    out: &mut Converted,
) {
    for constraint in list.and_then(Value::as_array).into_iter().flatten() {
        let part = |key: &str| text(&constraint[key]).unwrap_or_default();
        let (left, operand, right) = (part("LTarget"), part("Operand"), part("RTarget"));
        let place = ["${node.datacenter}", "${node.region}"].contains(&left.as_str());
        if place && ["=", "==", "is", "set_contains_any"].contains(&operand.as_str()) {
            for name in right.split(',') {
                take(name.trim(), "Constraints", regions, found, out);
            }
        } else {
            out.note(
                "Constraints",
                format!("{left} {operand} {right}: Machines are placed by region only"),
            );
        }
    }
}

/// What the update stanzas say of a deploy; a group's wins over the job's.
fn update(deploy: &mut super::draft::Deploy, job: &Map<String, Value>, groups: &[Value]) {
    let of_groups = groups.iter().map(|g| &g["Update"]);
    let stanzas: Vec<&Value> = job
        .get("Update")
        .into_iter()
        .chain(of_groups)
        .filter(|v| !value::is_empty(v))
        .collect();
    let said = |key: &str| stanzas.iter().rev().map(|s| &s[key]).find(|v| !v.is_null());
    if deploy.max_unavailable.is_none() {
        deploy.max_unavailable = said("MaxParallel").and_then(fraction).filter(|n| *n > 0.0);
    }
    let counts = groups.iter().filter_map(|g| number(&g["Count"]));
    let most = counts.max().unwrap_or(1);
    deploy.strategy = said("Canary")
        .and_then(number)
        .filter(|n| *n > 0)
        .map(|canaries| {
            // As many canaries as there are is Nomad's way to say blue and green.
            if canaries >= most {
                "bluegreen"
            } else {
                "canary"
            }
            .to_owned()
        });
    let seconds = said("HealthyDeadline")
        .and_then(number)
        .map(|n| n / 1_000_000_000);
    deploy.wait_timeout = seconds
        .filter(|n| *n > 0 && *n != DEFAULT_WAIT)
        .map(|n| format!("{n}s"));
}

/// Returns nanoseconds as a duration in whole seconds, within limits.
fn seconds(value: &Value, low: u64, high: u64) -> Option<String> {
    let nanos = number(value).filter(|n| *n > 0)?;
    Some(format!(
        "{}s",
        nanos.div_ceil(1_000_000_000).clamp(low, high)
    ))
}
