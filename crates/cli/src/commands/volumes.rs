//! `hangar volumes`.

mod text;

use anyhow::Result;
use hangar_api::id::{AppName, VolumeId};
use hangar_api::volume::{CreateVolume, GB, Snapshot, UpdateVolume, Volume, VolumeState};
use hangar_config::size::{self, Unit};

use crate::args::{AppArgs, ShowArgs, SnapshotsCommand, VolumeCreateArgs, VolumesCommand};
use crate::context::{AppChoice, Context, read_config};
use crate::error::Exit;
use crate::output;

/// The size of a volume that names none, in GB.
const DEFAULT_SIZE: u64 = 1;
const PINNED: &str = "Warning! Every volume is pinned to one host. You should create two or more \
    volumes per application to avoid downtime and permanent data loss.";

pub(super) async fn run(context: &Context, command: VolumesCommand) -> Result<Exit> {
    match command {
        VolumesCommand::List { show, all } => list(context, &show, all).await,
        VolumesCommand::Create(args) => create(context, args).await,
        VolumesCommand::Show { id, show } => {
            let app = context.app(&show.app).await?.name;
            let volume = context.client.volume(&app, &id).await?;
            shown(&app, &volume, show.json)
        }
        VolumesCommand::Update {
            id,
            show,
            snapshot_retention,
            scheduled_snapshots,
        } => {
            if snapshot_retention.is_none() && scheduled_snapshots.is_none() {
                let text = "nothing to update: give --snapshot-retention or --scheduled-snapshots";
                return Err(Exit::Usage.with(text));
            }
            let app = context.app(&show.app).await?.name;
            let input = UpdateVolume {
                snapshot_retention,
                auto_backup_enabled: scheduled_snapshots,
            };
            let volume = context.client.update_volume(&app, &id, &input).await?;
            shown(&app, &volume, show.json)
        }
        VolumesCommand::Extend { id, show, size, .. } => extend(context, &id, &show, &size).await,
        VolumesCommand::Destroy { ids, app, yes } => destroy(context, &ids, &app, yes).await,
        VolumesCommand::Fork {
            id,
            show,
            name,
            region,
            require_unique_zone,
        } => {
            let app = context.app(&show.app).await?.name;
            let source = context.client.volume(&app, &id).await?;
            let input = CreateVolume {
                name: name.unwrap_or(source.name),
                region,
                require_unique_zone,
                source_volume_id: Some(id.to_string()),
                ..CreateVolume::default()
            };
            let volume = context.client.create_volume(&app, &input).await?;
            told(&app, &volume, show.json)
        }
        VolumesCommand::Snapshots(command) => snapshots(context, command).await,
    }
}

async fn list(context: &Context, show: &ShowArgs, all: bool) -> Result<Exit> {
    let app = context.app(&show.app).await?.name;
    let mut volumes = context.client.volumes(&app).await?;
    volumes.retain(|volume| all || !volume.state.is_gone());
    if show.json {
        output::json(&volumes)?;
        return Ok(Exit::Done);
    }
    let now = hangar_api::env::Env::real().now();
    let row = |volume: &Volume| {
        let attached = volume.attached_machine_id.as_ref();
        vec![
            volume.id.to_string(),
            volume.state.to_string(),
            volume.name.clone(),
            format!("{}GB", volume.size_gb),
            volume.region.to_string(),
            volume.zone.clone(),
            volume.encrypted.to_string(),
            attached.map(ToString::to_string).unwrap_or_default(),
            text::ago(now, volume.created_at),
        ]
    };
    let rows: Vec<_> = volumes.iter().map(row).collect();
    let headers = [
        "ID",
        "State",
        "Name",
        "Size",
        "Region",
        "Zone",
        "Encrypted",
        "Attached VM",
        "Created At",
    ];
    output::table(None, &headers, &rows)?;
    Ok(Exit::Done)
}

async fn create(context: &Context, args: VolumeCreateArgs) -> Result<Exit> {
    let choice = context.app(&args.show.app).await?;
    if !confirmed(context, &choice.name, &args).await? {
        return Ok(Exit::Failed);
    }
    let region = match args.region {
        Some(region) => Some(region),
        None => primary_region(&choice)?,
    };
    let from_snapshot = args.snapshot_id.is_some();
    let input = CreateVolume {
        name: args.name,
        region,
        size_gb: args.size.or((!from_snapshot).then_some(DEFAULT_SIZE)),
        encrypted: None,
        fstype: args.fs_type,
        require_unique_zone: Some(args.require_unique_zone),
        unique_zone_app_wide: Some(args.unique_zone_app_wide),
        snapshot_retention: Some(args.snapshot_retention),
        auto_backup_enabled: Some(args.scheduled_snapshots),
        snapshot_id: args.snapshot_id,
        source_volume_id: None,
    };
    for _ in 0..args.count {
        let volume = context.client.create_volume(&choice.name, &input).await?;
        told(&choice.name, &volume, args.show.json)?;
    }
    Ok(Exit::Done)
}

/// Asks whether one volume is enough, unless there will be more.
async fn confirmed(context: &Context, app: &AppName, args: &VolumeCreateArgs) -> Result<bool> {
    if args.yes || args.count > 1 {
        return Ok(true);
    }
    let mut others = context.client.volumes(app).await?.into_iter();
    if others.any(|volume| volume.name == args.name && !volume.state.is_gone()) {
        return Ok(true);
    }
    output::say(PINNED);
    output::confirm("Do you still want to use the volumes feature?")
}

/// Returns the primary region that the app's fly.toml names, if there is one here.
fn primary_region(choice: &AppChoice) -> Result<Option<String>> {
    let Some(file) = &choice.file else {
        return Ok(None);
    };
    let format = hangar_config::Format::of_path(&file.to_string_lossy());
    let loaded = hangar_config::load_bytes(&read_config(file)?, format);
    // What else is wrong with the file is the deploy's to say.
    let region = loaded.config.and_then(|config| config.primary_region);
    Ok(region.filter(|region| !region.is_empty()))
}

async fn extend(context: &Context, id: &VolumeId, show: &ShowArgs, size: &str) -> Result<Exit> {
    let app = context.app(&show.app).await?.name;
    let usage = |error: &dyn std::fmt::Display| Exit::Usage.with(format!("--size: {error}"));
    let (more, number) = match size.strip_prefix('+') {
        Some(number) => (true, number),
        None => (false, size),
    };
    let number = size::parse(number, Unit::VolumeGb).map_err(|error| usage(&error))?;
    let number = u64::try_from(number).map_err(|error| usage(&error))?;
    if number == 0 {
        return Err(Exit::Usage.with("Volume size must be specified"));
    }
    let target = if more {
        let now = context.client.volume(&app, id).await?.size_gb;
        now.saturating_add(number)
    } else {
        number
    };
    let extended = context.client.extend_volume(&app, id, target).await?;
    told(&app, &extended.volume, show.json)?;
    if extended.needs_restart {
        output::say("You will need to stop and start your machine to increase the size of the FS");
    }
    Ok(Exit::Done)
}

async fn destroy(context: &Context, ids: &[VolumeId], app: &AppArgs, yes: bool) -> Result<Exit> {
    let app = context.app(app).await?.name;
    for id in ids {
        if !yes {
            let volume = context.client.volume(&app, id).await?;
            let all = context.client.volumes(&app).await?;
            let left = all
                .iter()
                .filter(|other| other.name == volume.name && !other.state.is_gone())
                .count();
            output::say(&format!(
                "Deleting a volume is not reversible. It will leave you with {} volume(s) named {}.",
                left.saturating_sub(1),
                volume.name
            ));
            if !output::confirm("Are you sure you want to destroy this volume?")? {
                return Ok(Exit::Failed);
            }
        }
        let gone = context.client.destroy_volume(&app, id).await?;
        output::data(&format!("Destroyed volume ID: {id} name: {}", gone.name))?;
    }
    Ok(Exit::Done)
}

/// Shows a volume that something was done to, and says what still goes on.
fn told(app: &AppName, volume: &Volume, json: bool) -> Result<Exit> {
    shown(app, volume, json)?;
    if volume.state != VolumeState::Created {
        output::say(&format!(
            "The volume is {}; see when it is created with: hangar volumes show {} -a {app}",
            volume.state, volume.id
        ));
    }
    Ok(Exit::Done)
}

fn shown(app: &AppName, volume: &Volume, json: bool) -> Result<Exit> {
    if json {
        output::json(volume)?;
        return Ok(Exit::Done);
    }
    let mut fields = vec![
        ("ID", volume.id.to_string()),
        ("Name", volume.name.clone()),
        ("App", app.to_string()),
        ("Region", volume.region.to_string()),
        ("Zone", volume.zone.clone()),
        ("Size GB", volume.size_gb.to_string()),
        ("Encrypted", volume.encrypted.to_string()),
        ("Created at", text::rfc822(volume.created_at)),
        ("Snapshot retention", volume.snapshot_retention.to_string()),
        (
            "Scheduled snapshots",
            volume.auto_backup_enabled.to_string(),
        ),
    ];
    if let Some(machine) = &volume.attached_machine_id {
        fields.push(("Attached VM", machine.to_string()));
    }
    if volume.bytes_total > 0 {
        let (used, total) = (
            text::bytes(volume.bytes_used),
            text::bytes(volume.bytes_total),
        );
        fields.push(("Used", format!("{used} of {total}")));
    }
    if let Some(reason) = &volume.reason {
        fields.push(("Last failure", reason.clone()));
    }
    let lines = fields
        .iter()
        .map(|(name, value)| format!("{name:>20}: {value}"));
    output::data(&lines.collect::<Vec<_>>().join("\n"))?;
    Ok(Exit::Done)
}

async fn snapshots(context: &Context, command: SnapshotsCommand) -> Result<Exit> {
    match command {
        SnapshotsCommand::List { id, show } => {
            let app = context.app(&show.app).await?.name;
            let mut all = context.client.volume_snapshots(&app, &id).await?;
            all.sort_by_key(|snapshot| snapshot.created_at);
            if show.json {
                output::json(&all)?;
            } else if all.is_empty() {
                output::say(&format!("No snapshots available for volume {id}"));
            } else {
                table(&all)?;
            }
        }
        SnapshotsCommand::Create { id, show } => {
            let app = context.app(&show.app).await?.name;
            let asked = context.client.create_snapshot(&app, &id).await?;
            if show.json {
                output::json(&asked)?;
            } else {
                output::data(&format!("Scheduled to snapshot volume {id}"))?;
            }
        }
        SnapshotsCommand::Destroy {
            id,
            snapshot,
            app,
            yes,
        } => {
            let app = context.app(&app).await?.name;
            if !yes && !output::confirm(&format!("Destroy snapshot {snapshot} of volume {id}?"))? {
                return Ok(Exit::Failed);
            }
            let client = &context.client;
            client.destroy_snapshot(&app, &id, &snapshot).await?;
            output::data(&format!("Destroyed snapshot {snapshot}"))?;
        }
    }
    Ok(Exit::Done)
}

fn table(all: &[Snapshot]) -> Result<()> {
    let now = hangar_api::env::Env::real().now();
    let row = |snapshot: &Snapshot| {
        vec![
            snapshot.id.to_string(),
            snapshot.status.as_str().to_owned(),
            text::bytes(snapshot.size),
            text::bytes(snapshot.volume_size.max(GB)),
            text::ago(now, snapshot.created_at),
            snapshot.retention_days.to_string(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let headers = [
        "ID",
        "Status",
        "Stored Size",
        "Vol Size",
        "Created At",
        "Retention Days",
    ];
    output::table(Some("Snapshots"), &headers, &rows)?;
    for snapshot in all {
        if let Some(reason) = &snapshot.reason {
            output::say(&format!("{} failed: {reason}", snapshot.id));
        }
    }
    let stored = all.iter().map(|snapshot| snapshot.size).sum();
    output::data(&format!("\nTotal stored size: {}", text::bytes(stored)))
}
