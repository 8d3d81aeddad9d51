//! `machine leases view` and `machine leases clear`.

use std::collections::BTreeMap;

use anyhow::Result;
use hangar_api::Timestamp;
use hangar_api::id::{AppName, MachineId};
use hangar_api::lease::Lease;
use hangar_client::MachineFilter;
use serde_json::json;

use super::select::{self, app_of};
use crate::args::{LeasesCommand, MachineIds};
use crate::context::Context;
use crate::error::Exit;
use crate::output::{self, rfc3339};

pub(super) async fn run(context: &Context, command: LeasesCommand) -> Result<Exit> {
    match command {
        LeasesCommand::View { ids, json } => view(context, &ids, json).await,
        LeasesCommand::Clear(ids) => clear(context, &ids).await,
    }
}

async fn view(context: &Context, which: &MachineIds, json: bool) -> Result<Exit> {
    let mut leases: BTreeMap<MachineId, Lease> = BTreeMap::new();
    for (app, id) in targets(context, which).await? {
        if let Some(lease) = held(context, &app, &id).await? {
            leases.insert(id, lease);
        }
    }
    if json {
        let enveloped: BTreeMap<_, _> = leases
            .iter()
            .map(|(id, lease)| (id, json!({"status": "success", "data": lease})))
            .collect();
        output::json(&enveloped)?;
    } else if leases.is_empty() {
        output::data("No leases found")?;
    } else {
        let row = |(id, lease): (&MachineId, &Lease)| {
            vec![
                id.to_string(),
                lease.nonce.clone(),
                "success".to_owned(),
                lease.owner.clone(),
                rfc3339(Timestamp::from_second(lease.expires_at).unwrap_or_default()),
            ]
        };
        let rows: Vec<Vec<String>> = leases.iter().map(row).collect();
        let headers = ["Machine", "Nonce", "Status", "Owner", "Expires"];
        output::table(None, &headers, &rows)?;
    }
    Ok(Exit::Done)
}

async fn clear(context: &Context, which: &MachineIds) -> Result<Exit> {
    for id in select::many(context, which).await? {
        let app = app_of(context, &which.app, &id).await?;
        if let Some(lease) = held(context, &app, &id).await? {
            output::data(&format!("clearing lease for machine {id}"))?;
            context
                .client
                .release_lease(&app, &id, &lease.nonce)
                .await?;
        }
    }
    output::data("Lease(s) cleared")?;
    Ok(Exit::Done)
}

/// Returns the Machines named, else all of the app.
async fn targets(context: &Context, which: &MachineIds) -> Result<Vec<(AppName, MachineId)>> {
    if which.ids.is_empty() && !which.select {
        let app = context.app(&which.app).await?.name;
        let all = context
            .client
            .machines(&app, &MachineFilter::default())
            .await?;
        return Ok(all.into_iter().map(|m| (app.clone(), m.id)).collect());
    }
    let mut found = Vec::new();
    for id in select::many(context, which).await? {
        found.push((app_of(context, &which.app, &id).await?, id));
    }
    Ok(found)
}

async fn held(context: &Context, app: &AppName, id: &MachineId) -> Result<Option<Lease>> {
    match context.client.current_lease(app, id).await {
        Ok(lease) => Ok(Some(lease)),
        Err(error) if error.status() == Some(404) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
