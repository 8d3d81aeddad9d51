//! `hangar plan`: what a deploy would do, by group and Machine, field by field.

use std::path::Path;

use anyhow::Result;
use hangar_api::deployment::DeployPreview;
use hangar_api::preview::{FieldChange, GroupPreview, MachinePreview, PreviewAction};
use serde_json::json;

use super::deploy::{self, DeployInput};
use crate::args::migrate::PlanArgs;
use crate::context::Context;
use crate::error::Exit;
use crate::output;

pub(super) async fn run(args: PlanArgs) -> Result<Exit> {
    let context = Context::find()?;
    let mut app = args.app;
    let mut folder = Path::new(".").to_owned();
    if let Some(dir) = args.dir {
        // As `deploy` does it: the folder comes first, a configuration is looked for from there.
        app.config = Some(
            app.config
                .map_or_else(|| dir.clone(), |file| dir.join(file)),
        );
        if dir.is_dir() {
            folder = dir;
        } else if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            folder = parent.to_owned();
        }
    }
    let choice = context.app(&app).await?;
    let input = DeployInput {
        file: choice.file,
        folder,
        app: Some(choice.name),
        image: args.image,
        ha: Some(args.ha),
        primary_region: args.primary_region,
        env: args.env,
        vm: args.vm,
        dry_run: true,
        ..DeployInput::default()
    };
    let prepared = deploy::prepare(&context, &input).await?;
    let preview = context
        .client
        .preview_deployment(&prepared.app, &prepared.body)
        .await?;
    let counts = Counts::of(&preview);
    let exit = if counts.nothing() {
        Exit::Done
    } else {
        Exit::Changes
    };
    if args.json {
        output::json(&json!({
            "app": prepared.app, "something_to_do": !counts.nothing(), "groups": preview.groups,
            "create": counts.create, "change": counts.change, "replace": counts.replace, "destroy": counts.destroy,
        }))?;
        return Ok(exit);
    }
    output::data(&lines(&preview).join("\n"))?;
    Ok(exit)
}

/// How many Machines what happens to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    keep: usize,
    create: usize,
    change: usize,
    replace: usize,
    destroy: usize,
}

// === impl Counts ===

impl Counts {
    fn of(preview: &DeployPreview) -> Self {
        let mut counts = Self::default();
        for machine in preview.groups.iter().flat_map(|group| &group.machines) {
            counts.add(machine.action);
        }
        counts
    }

    fn of_group(group: &GroupPreview) -> Self {
        let mut counts = Self::default();
        group.machines.iter().for_each(|m| counts.add(m.action));
        counts
    }

    fn add(&mut self, action: PreviewAction) {
        let place = match action {
            PreviewAction::Keep => &mut self.keep,
            PreviewAction::Create => &mut self.create,
            PreviewAction::Change => &mut self.change,
            PreviewAction::Replace => &mut self.replace,
            PreviewAction::Destroy => &mut self.destroy,
        };
        *place += 1;
    }

    fn nothing(self) -> bool {
        self.create + self.change + self.replace + self.destroy == 0
    }

    /// Returns what is not zero, in words.
    fn words(self) -> String {
        let parts = [
            (self.create, "to create"),
            (self.change, "to change"),
            (self.replace, "to replace"),
            (self.destroy, "to destroy"),
            (self.keep, "to keep"),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0);
        let parts: Vec<String> = parts
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        parts.join(", ")
    }
}

/// Returns the plan as text. Machines of which the same is said are put together.
fn lines(preview: &DeployPreview) -> Vec<String> {
    let mut out = Vec::new();
    for group in &preview.groups {
        out.push(format!(
            "{}: {}",
            group.group,
            Counts::of_group(group).words()
        ));
        let mut told: Vec<(&MachinePreview, Vec<String>)> = Vec::new();
        for machine in &group.machines {
            let name = name(machine);
            let same = |other: &MachinePreview| {
                (other.action, &other.why, &other.changes)
                    == (machine.action, &machine.why, &machine.changes)
            };
            match told.iter_mut().find(|(other, _)| same(other)) {
                Some((_, names)) => names.push(name),
                None => told.push((machine, vec![name])),
            }
        }
        for (machine, names) in told {
            let mark = match machine.action {
                PreviewAction::Keep => " ",
                PreviewAction::Create => "+",
                PreviewAction::Change => "~",
                PreviewAction::Replace => "±",
                PreviewAction::Destroy => "-",
            };
            out.push(format!("  {mark} {}: {}", names.join(", "), machine.why));
            out.extend(machine.changes.iter().map(change));
        }
        out.push(String::new());
    }
    let counts = Counts::of(preview);
    if counts.nothing() {
        out.push("Nothing to do: the Machines are as fly.toml says.".to_owned());
    } else {
        out.push(format!("Plan: {}.", counts.words()));
    }
    if counts.keep > 0 {
        out.push(
            "A deploy starts Machines that are kept again, with the number of its release."
                .to_owned(),
        );
    }
    out
}

fn name(machine: &MachinePreview) -> String {
    match &machine.machine {
        Some(id) => format!("{id} ({})", machine.region),
        None => format!("a Machine in {}", machine.region),
    }
}

fn change(change: &FieldChange) -> String {
    let FieldChange { field, from, to } = change;
    match (from, to) {
        (Some(from), Some(to)) => format!("      {field}: {from} -> {to}"),
        (None, Some(to)) => format!("      {field}: + {to}"),
        (Some(from), None) => format!("      {field}: - {from}"),
        (None, None) => format!("      {field}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preview() -> DeployPreview {
        let machine = |id: &str, action, why: &str, changes| MachinePreview {
            machine: id.parse().ok(),
            region: "iad".parse().unwrap(),
            action,
            why: why.to_owned(),
            changes,
        };
        let mode = || {
            vec![FieldChange {
                field: "env.MODE".to_owned(),
                from: Some("a".into()),
                to: None,
            }]
        };
        let (a, b) = ("00000000000001", "00000000000002");
        let web = vec![
            machine(a, PreviewAction::Change, "in place: env", mode()),
            machine(b, PreviewAction::Change, "in place: env", mode()),
            machine("", PreviewAction::Create, "new", Vec::new()),
        ];
        DeployPreview {
            steps: Vec::new(),
            groups: vec![GroupPreview {
                group: "web".parse().unwrap(),
                machines: web,
            }],
        }
    }

    #[test]
    fn what_is_the_same_for_several_is_said_once() {
        assert_eq!(
            lines(&preview()).join("\n"),
            "web: 1 to create, 2 to change
  ~ 00000000000001 (iad), 00000000000002 (iad): in place: env
      env.MODE: - \"a\"
  + a Machine in iad: new

Plan: 1 to create, 2 to change."
        );
    }

    #[test]
    fn a_plan_that_only_keeps_is_nothing_to_do() {
        let mut preview = preview();
        for machine in &mut preview.groups[0].machines {
            machine.action = PreviewAction::Keep;
        }
        assert!(Counts::of(&preview).nothing());
        assert!(lines(&preview).join("\n").contains("Nothing to do"));
    }
}
