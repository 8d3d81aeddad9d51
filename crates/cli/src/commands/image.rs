//! `hangar image`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::args::ImageCommand;
use crate::context::Context;
use crate::error::Exit;
use crate::output::{self, Progress, rfc3339};

pub(super) async fn run(context: &Context, command: ImageCommand) -> Result<Exit> {
    match command {
        ImageCommand::Import { path, name } => {
            let image = import(context, &path, &name).await?;
            output::data(&format!("Imported {name} as {}", image.digest))?;
        }
        ImageCommand::List(args) => {
            let images = context.client.images().await?;
            if args.json {
                output::json(&images)?;
            } else {
                let rows: Vec<Vec<String>> = images
                    .iter()
                    .map(|i| {
                        let used = if i.in_use { "yes" } else { "no" };
                        vec![
                            i.name.clone(),
                            i.digest.clone(),
                            size(i.size),
                            used.to_owned(),
                            rfc3339(i.created_at),
                        ]
                    })
                    .collect();
                output::table(
                    None,
                    &["Name", "Digest", "Size", "In Use", "Created"],
                    &rows,
                )?;
            }
        }
        ImageCommand::Prune(args) => {
            let pruned = context.client.prune_images().await?;
            if args.json {
                output::json(&pruned)?;
            } else {
                for name in &pruned.images {
                    output::data(&format!("Removed {name}"))?;
                }
                output::data(&format!("Freed {}", size(pruned.bytes)))?;
            }
        }
    }
    Ok(Exit::Done)
}

/// Sends an archive, or a layout folder packed into one, to the server.
pub(super) async fn import(
    context: &Context,
    path: &Path,
    name: &str,
) -> Result<hangar_api::image::ImageRef> {
    if !path.exists() {
        return Err(Exit::NotFound.with(format!("there is no image at {}", path.display())));
    }
    let mut packed = None;
    let archive: PathBuf = if path.is_dir() {
        let file = tempfile::NamedTempFile::new().context("make a file for the archive")?;
        hangar_image::build::pack_layout(path, file.path())
            .with_context(|| format!("read {}", path.display()))?;
        let archive = file.path().to_owned();
        packed = Some(file);
        archive
    } else {
        path.to_owned()
    };
    let bytes = std::fs::metadata(&archive).map_or(0, |meta| meta.len());
    let _sending = Progress::start(format!("Sending the image, {}", size(bytes)));
    let image = context.client.import_image(&archive, name).await?;
    drop(packed);
    Ok(image)
}

#[expect(clippy::cast_precision_loss, reason = "shown to one decimal")]
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
