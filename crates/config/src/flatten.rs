//! A configuration as one group sees it (process-groups-and-deploy.md 2.2), and what is wrong
//! with it there (1.6 `ValidateGroups`).

use crate::app::{AppConfig, HttpService, Vm};
use crate::group::APP;
use crate::problem::{Problem, Source};
use crate::raw::{Format, Node, Value};
use crate::read::Reader;
use crate::{suggest, validate};

/// Sections of a list, by their places in the file.
type Kept = Vec<(&'static str, Vec<usize>)>;

impl AppConfig {
    /// Returns the configuration as one group sees it: its command, the sections that are for
    /// it, and of `[[vm]]` the one that counts. A group that does not exist has no command, and
    /// gets what is for every group. (Files are kept by group too, as on Fly, though Machines get
    /// all of them.)
    #[must_use]
    pub fn flatten(&self, group: &str) -> Self {
        self.flat(group).0
    }

    /// Returns what is wrong with single groups: mistakes in sections of others do not matter.
    /// Of no groups, what is wrong with the whole. The problems have paths of this configuration
    /// and no lines.
    #[must_use]
    pub fn validate_groups(&self, groups: &[&str]) -> Vec<Problem> {
        if groups.is_empty() {
            return told(|reader, root| validate::whole(reader, self, root));
        }
        let mut problems: Vec<Problem> = Vec::new();
        for group in groups {
            for problem in self.validate_group(group) {
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
        problems
    }

    fn validate_group(&self, group: &str) -> Vec<Problem> {
        let known = self.groups();
        if !known.contains(&group) {
            let hint = suggest::name(group, &known)
                .unwrap_or_else(|| format!("the groups are: {}", known.join(", ")));
            return told(|reader, root| {
                let message = format!("there is no process group '{group}'");
                reader.tell(
                    crate::Severity::Error,
                    "processes",
                    &root.span,
                    message,
                    Some(hint),
                );
            });
        }
        let (flat, kept) = self.flat(group);
        let mut problems = told(|reader, root| validate::flat(reader, &flat, root));
        for problem in &mut problems {
            problem.path = path_in_file(&problem.path, &kept);
        }
        problems
    }

    fn flat(&self, group: &str) -> (Self, Kept) {
        let mut flat = self.clone();
        let mut kept = Kept::new();
        // Without [processes] the one group is there without being named.
        if !self.processes.is_empty() || group != APP {
            let command = self.processes.get(group).cloned().unwrap_or_default();
            flat.processes = [(group.to_owned(), command)].into();
        }
        let mine = |processes: &[String]| self.is_for(processes, group);
        let only = || vec![group.to_owned()];
        let http = flat.http_service.take().filter(|h| mine(&h.processes));
        flat.http_service = http.map(|h| HttpService {
            processes: only(),
            ..h
        });
        flat.checks.retain(|_, check| mine(&check.processes));
        for check in flat.checks.values_mut() {
            check.processes = only();
        }
        macro_rules! lists {
            ($($key:ident),*) => {$(
                let places = self.$key.iter().enumerate();
                let places = places.filter(|(_, s)| mine(&s.processes)).map(|(i, _)| i);
                kept.push((stringify!($key), places.collect()));
                flat.$key.retain(|s| mine(&s.processes));
                for section in &mut flat.$key {
                    section.processes = only();
                }
            )*};
        }
        lists!(services, mounts, files, metrics, restart);
        let vm = self.vm_of(group);
        kept.push(("vm", vm.iter().map(|(i, _)| *i).collect()));
        if let Some(id) = vm.and_then(|(_, vm)| vm.host_dedication_id.clone()) {
            flat.host_dedication_id = Some(id);
        }
        flat.vm = vm
            .into_iter()
            .map(|(_, vm)| Vm {
                processes: only(),
                ..vm.clone()
            })
            .collect();
        (flat, kept)
    }
}

/// Returns what a check tells of a configuration that has no text.
fn told(check: impl FnOnce(&Reader<'_>, &Node)) -> Vec<Problem> {
    let source = Source::default();
    let reader = Reader::new(&source, Format::Toml);
    check(&reader, &Node::new(Value::Table(Vec::new()), 0..0));
    let mut problems = reader.into_problems();
    for problem in &mut problems {
        (problem.line, problem.column) = (None, None);
    }
    problems
}

/// Returns the path in the whole configuration for one in the flattened.
fn path_in_file(path: &str, kept: &Kept) -> String {
    let whole = || path.to_owned();
    let Some((key, rest)) = path.split_once('[') else {
        return whole();
    };
    let Some((_, places)) = kept.iter().find(|(name, _)| *name == key) else {
        return whole();
    };
    let Some((index, rest)) = rest.split_once(']') else {
        return whole();
    };
    let place = index.parse().ok().and_then(|i: usize| places.get(i));
    place.map_or_else(whole, |place| format!("{key}[{place}]{rest}"))
}
