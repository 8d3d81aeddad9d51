//! Addresses of apps: what was allocated, shown as where the proxy listens now.

use std::net::IpAddr;

use hangar_api::id::AppName;
use hangar_api::ip::{AssignIp, IpAssignment, IpKind, IpRecord};
use hangar_store::tables::IpRecords;
use hangar_store::{Snapshot, Txn};

use crate::core::{Core, MAX_TRIES, too_contended};
use crate::error::Problem;

/// Returns the addresses of an app. The one truth of them, for every API.
pub(crate) fn list(core: &Core, snapshot: &Snapshot, app: &AppName) -> Vec<IpAssignment> {
    let records = snapshot.under::<IpRecords, _>(app);
    records
        .filter_map(|record| view(core, &record.value))
        .collect()
}

/// Returns an address as clients see it; none where the proxy has moved to where it has no such.
fn view(core: &Core, record: &IpRecord) -> Option<IpAssignment> {
    let edge = core.edge.borrow().address;
    Some(IpAssignment {
        ip: record.kind.of(edge)?,
        region: core.slots.first()?.region.clone(),
        service_name: record.service_name.clone(),
        shared: false,
        created_at: record.created_at,
        kind: record.kind,
    })
}

/// Allocates an address. Asked for twice, the same is given.
pub(crate) async fn assign(
    core: &Core,
    app: &AppName,
    input: AssignIp,
) -> Result<IpAssignment, Problem> {
    let asked = input.kind.unwrap_or_default();
    let kind: IpKind = asked.parse().map_err(|()| refused(&asked))?;
    for _ in 0..MAX_TRIES {
        let app_record = core.app(app)?;
        let key = (app.clone(), kind.as_str().to_owned());
        let record = match core.cache.get::<IpRecords>(&key) {
            Some(there) => there.value.clone(),
            None => IpRecord {
                kind,
                service_name: input.service_name.clone().unwrap_or_default(),
                created_at: core.env.now(),
            },
        };
        let Some(shown) = view(core, &record) else {
            return Err(Problem::Unsupported(format!(
                "addresses of type {asked} are not offered by this Hangar: its proxy listens on \
                 IPv6 alone (--edge)"
            )));
        };
        let txn = Txn::new()
            .check_same(&app_record)
            .put::<IpRecords>(&key, &record);
        if core.try_commit(txn).await?.is_some() {
            tracing::info!(app = %app, kind = kind.as_str(), ip = %shown.ip, "address allocated");
            return Ok(shown);
        }
    }
    Err(too_contended())
}

fn refused(asked: &str) -> Problem {
    let why = match asked {
        "private_v6" => "apps have no addresses of their own on the private network yet (Flycast)",
        "egress_v4" | "egress_v6" | "egress_pair" => {
            "what Machines send leaves by the host's own address"
        }
        _ => {
            let asked: String = asked.chars().take(40).collect();
            return Problem::Invalid(format!(
                "invalid_argument: type {asked:?} is none of v4, shared_v4 and v6"
            ));
        }
    };
    Problem::Unsupported(format!(
        "addresses of type {asked} are not offered by this Hangar: {why}"
    ))
}

/// Gives an address back, whatever forms of it the app has.
pub(crate) async fn release(core: &Core, app: &AppName, ip: IpAddr) -> Result<(), Problem> {
    core.app(app)?;
    let shown = list(core, &core.cache.snapshot(), app);
    let its: Vec<_> = shown.iter().filter(|shown| shown.ip == ip).collect();
    if its.is_empty() {
        return Err(Problem::NotFound(format!("app {app} has no address {ip}")));
    }
    let txn = its.iter().fold(Txn::new(), |txn, shown| {
        let key = (app.clone(), shown.kind.as_str().to_owned());
        txn.delete::<IpRecords>(&key)
    });
    // Whoever was first with it has given it back as well.
    core.try_commit(txn).await?;
    tracing::info!(app = %app, ip = %ip, "address given back");
    Ok(())
}
