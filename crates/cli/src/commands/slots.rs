//! `hangar slots`: the places that Machines are put on, and which of them are lost.

use anyhow::Result;
use hangar_api::id::SlotId;

use crate::args::SlotsCommand;
use crate::context::Context;
use crate::error::Exit;
use crate::output;

pub(super) async fn run(context: &Context, command: SlotsCommand) -> Result<Exit> {
    match command {
        SlotsCommand::List(args) => list(context, args.json).await,
        SlotsCommand::Lost { slot } => mark(context, &slot, true).await,
        SlotsCommand::Back { slot } => mark(context, &slot, false).await,
    }
}

async fn list(context: &Context, json: bool) -> Result<Exit> {
    let slots = context.client.slots().await?;
    if json {
        output::json(&slots)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = slots
        .iter()
        .map(|slot| {
            let state = if slot.lost { "lost" } else { "ok" };
            vec![
                slot.id.to_string(),
                slot.region.to_string(),
                slot.zone.clone(),
                state.to_owned(),
            ]
        })
        .collect();
    output::table(None, &["Name", "Region", "Zone", "State"], &rows)?;
    Ok(Exit::Done)
}

async fn mark(context: &Context, slot: &SlotId, lost: bool) -> Result<Exit> {
    let marked = context.client.mark_slot(slot, lost).await?;
    let text = if marked.lost {
        "is marked lost: nothing is placed there, standbys take over, and Machines that have none \
         are made anew elsewhere"
    } else {
        "is back"
    };
    output::say(&format!("Slot {slot} {text}"));
    Ok(Exit::Done)
}
