//! `hangar orgs`.

use anyhow::Result;
use hangar_api::org::{CreateOrg, Org, OrgKind};

use crate::args::OrgsCommand;
use crate::context::Context;
use crate::error::Exit;
use crate::output::{self, rfc3339};

pub(super) async fn run(context: &Context, command: OrgsCommand) -> Result<Exit> {
    let client = &context.client;
    match command {
        OrgsCommand::List(form) => list(&client.orgs().await?.organizations, form.json),
        OrgsCommand::Create { name, form } => {
            let wanted = CreateOrg {
                name: Some(name),
                slug: None,
            };
            show(&client.create_org(&wanted).await?, form.json)
        }
        OrgsCommand::Show { slug, form } => show(&client.org(&slug).await?, form.json),
        OrgsCommand::Delete { slug, yes } => {
            let question = format!("Delete organization {slug} with its tokens?");
            if !yes && !output::confirm(&question)? {
                return Ok(Exit::Done);
            }
            client.delete_org(&slug).await?;
            output::data(&format!("Organization {slug} is gone"))?;
            Ok(Exit::Done)
        }
    }
}

fn kind(org: &Org) -> String {
    match org.kind {
        OrgKind::Personal => "PERSONAL",
        OrgKind::Shared => "SHARED",
    }
    .to_owned()
}

fn list(orgs: &[Org], json: bool) -> Result<Exit> {
    if json {
        // As flyctl does.
        let names = orgs
            .iter()
            .map(|org| (org.slug.to_string(), org.name.clone()));
        let names: std::collections::BTreeMap<String, String> = names.collect();
        output::json(&names)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = orgs
        .iter()
        .map(|org| {
            let apps = org.app_count.to_string();
            vec![org.name.clone(), org.slug.to_string(), kind(org), apps]
        })
        .collect();
    output::table(None, &["Name", "Slug", "Type", "Apps"], &rows)?;
    Ok(Exit::Done)
}

fn show(org: &Org, json: bool) -> Result<Exit> {
    if json {
        output::json(org)?;
        return Ok(Exit::Done);
    }
    output::record(
        "Organization",
        &[
            ("Name", org.name.clone()),
            ("Slug", org.slug.to_string()),
            ("Type", kind(org)),
            ("Apps", org.app_count.to_string()),
            ("Created", rfc3339(org.created_at)),
        ],
    )?;
    Ok(Exit::Done)
}
