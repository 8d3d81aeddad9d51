//! `hangar plan`: what a deploy would do, by group and Machine, field by field.

use anyhow::Result;
use hangar_api::deployment::DeployPreview;
use hangar_api::preview::{FieldChange, GroupPreview, MachinePreview, PreviewAction};
use serde_json::json;

use super::deploy::{self, DeployInput};
use crate::args::PlanArgs;
use crate::context::Context;
use crate::error::Exit;
use crate::output;

pub(super) async fn run(args: PlanArgs) -> Result<Exit> {
    let context = Context::find()?;
    let input = DeployInput {
        dry_run: true,
        ..DeployInput::of(&context, args.what).await?
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
            "steps": preview.steps, "create": counts.create, "change": counts.change, "replace": counts.replace, "destroy": counts.destroy,
        }))?;
        return Ok(exit);
    }
    output::data(&lines(&preview).join("\n"))?;
    Ok(exit)
}

/// What a step of a preview begins with; other lines are headings, which end with a colon, and
/// what there is to know.
const STEP: &str = " * ";

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
    let steps = preview.steps.iter().filter(|line| !line.ends_with(':'));
    let (steps, told): (Vec<&String>, _) = steps.partition(|line| line.starts_with(STEP));
    out.extend(told.into_iter().cloned());
    if !counts.nothing() {
        out.push("In this order:".to_owned());
        out.extend(steps.into_iter().cloned());
        out.push(String::new());
    }
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
        let steps = [
            "--regions filter applied, deploying to 2/3 machines",
            "Process groups have changed. This will:",
            " * update 2 \"web\" machines (the first alone, then 1 at a time)",
        ];
        DeployPreview {
            steps: steps.map(str::to_owned).to_vec(),
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

--regions filter applied, deploying to 2/3 machines
In this order:
 * update 2 \"web\" machines (the first alone, then 1 at a time)

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
        let text = lines(&preview).join("\n");
        assert!(text.contains("Nothing to do"), "{text}");
        assert!(!text.contains(" * update"), "{text}");
    }
}
