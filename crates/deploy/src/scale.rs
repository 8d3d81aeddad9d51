//! `scale count`: which Machines to create and destroy so that groups have the asked count
//! (process-groups-and-deploy.md 5.1).
//!
//! Pure. Called by whoever carries the plan out; the copies run what the first Machine of the
//! group runs, fly.toml is asked only where a group has no Machine.

pub mod volumes;

use std::collections::BTreeMap;

use hangar_api::id::{GroupName, InstanceId, MachineId, Region};
use hangar_api::machine::{Guest, Machine, MachineConfig, MachineSpec};
use hangar_api::release::{GroupSpec, Release};

use crate::desired::default_group;
use crate::merge::{self, Mark};

/// Most Machines that one `scale count` may ask a group to have.
pub const MAX_COUNT: u32 = 10_000;

/// How many Machines a group is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// So many.
    To(u32),
    /// So many more or fewer, in all regions.
    By(i64),
}

/// A Machine as scaling sees it.
#[derive(Clone, Debug)]
pub struct ScaleMachine {
    /// Its id.
    pub id: MachineId,
    /// Its version.
    pub instance: InstanceId,
    /// Its region.
    pub region: Region,
    /// Its configuration.
    pub config: MachineConfig,
}

/// Where Machines go.
#[derive(Clone, Debug)]
pub struct ScaleOptions {
    /// The regions to look at; empty means the group's pool.
    pub regions: Vec<Region>,
    /// The region pool of each group; one without looks at those in use by any, else the primary
    /// one.
    pub pools: BTreeMap<GroupName, Vec<Region>>,
    /// Where Machines go when none are in use.
    pub primary_region: Region,
    /// Most Machines of a group in one region.
    pub max_per_region: Option<u32>,
    /// Size of new Machines where neither fly.toml nor another Machine gives one.
    pub guest: Option<Guest>,
}

/// One Machine to create or destroy.
#[derive(Clone, Debug, PartialEq)]
pub enum ScaleAction {
    /// A copy of the group's first Machine, or one from the release.
    Create {
        /// Its group.
        group: GroupName,
        /// Where.
        region: Region,
        /// The whole configuration.
        config: Box<MachineConfig>,
    },
    /// A Machine too many.
    Destroy {
        /// Its group.
        group: GroupName,
        /// Where.
        region: Region,
        /// Which.
        machine: MachineId,
        /// The version that it must have.
        expected: InstanceId,
    },
}

/// Why counts cannot be had; the texts are flyctl's where it has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    /// Not `N`, `+N`, `-N` or `group=N`.
    #[error("'{0}' is not a valid process=count option: write a number, or group=number")]
    Syntax(String),
    /// `+0` or `-0`.
    #[error("invalid relative scale count '{0}'")]
    Relative(String),
    /// More than anybody means.
    #[error("a count of {0} is too many: at most {MAX_COUNT} Machines a group")]
    TooMany(u64),
    /// A group twice.
    #[error("group {0} is given twice")]
    Twice(GroupName),
    /// Groups that the app does not have.
    #[error(
        "Attempting to scale unknown process groups [{unknown}] but valid names are [{valid}]. Use `scale count GROUP=N`, or add the group to [processes] and deploy"
    )]
    Unknown {
        /// Those asked for.
        unknown: String,
        /// Those there are.
        valid: String,
    },
    /// The regions do not hold so many.
    #[error(
        "{total} Machines of group {group} do not fit: {regions} regions with at most {max} each; raise --max-per-region or name more regions"
    )]
    NoRoom {
        /// The group.
        group: GroupName,
        /// How many were asked for.
        total: u64,
        /// How many regions.
        regions: usize,
        /// How many in each.
        max: u32,
    },
}

/// Reads the arguments of `scale count`: one bare count for `group` (or `app`), or `group=count`
/// pairs.
pub fn parse_counts(
    args: &[String],
    group: Option<&GroupName>,
) -> Result<BTreeMap<GroupName, Count>, ScaleError> {
    if let [only] = args
        && !only.contains('=')
    {
        let group = group.cloned().unwrap_or_else(GroupName::app);
        return Ok(BTreeMap::from([(group, parse_count(only)?)]));
    }
    let mut counts = BTreeMap::new();
    for arg in args {
        let syntax = || ScaleError::Syntax(arg.chars().take(80).collect());
        let (name, count) = arg.split_once('=').ok_or_else(syntax)?;
        let group = GroupName::new(name).map_err(|_| syntax())?;
        if counts.insert(group.clone(), parse_count(count)?).is_some() {
            return Err(ScaleError::Twice(group));
        }
    }
    Ok(counts)
}

fn parse_count(text: &str) -> Result<Count, ScaleError> {
    let syntax = || ScaleError::Syntax(text.chars().take(80).collect());
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'+') => (1, &text[1..]),
        Some(b'-') => (-1, &text[1..]),
        _ => (0, text),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(syntax());
    }
    let number: u64 = digits.parse().map_err(|_| syntax())?;
    if number > u64::from(MAX_COUNT) {
        return Err(ScaleError::TooMany(number));
    }
    let number = u32::try_from(number).map_err(|_| syntax())?;
    match (sign, number) {
        (0, n) => Ok(Count::To(n)),
        (_, 0) => Err(ScaleError::Relative(text.to_owned())),
        (sign, n) => Ok(Count::By(sign * i64::from(n))),
    }
}

/// Returns the Machines to create and destroy. `machines` are the app's managed ones, in the
/// order in which the first ones are removed first.
pub fn plan_count(
    counts: &BTreeMap<GroupName, Count>,
    release: &Release,
    machines: &[ScaleMachine],
    options: &ScaleOptions,
) -> Result<Vec<ScaleAction>, ScaleError> {
    let unknown: Vec<&str> = counts
        .keys()
        .filter(|g| !release.groups.contains_key(*g))
        .map(GroupName::as_str)
        .collect();
    if !unknown.is_empty() {
        let valid: Vec<&str> = release.groups.keys().map(GroupName::as_str).collect();
        return Err(ScaleError::Unknown {
            unknown: unknown.join(" "),
            valid: valid.join(" "),
        });
    }
    let mut actions = Vec::new();
    for (group, count) in counts {
        let regions = regions(group, machines, options);
        let of_group: Vec<&ScaleMachine> = machines.iter().filter(|m| is_of(m, group)).collect();
        let total = wanted(*count, of_group.len())?;
        let mut current: Vec<u64> = Vec::new();
        for region in &regions {
            let here = of_group.iter().filter(|m| m.region == *region).count();
            current.push(len(here));
        }
        let goal = converge(group, total, &current, options.max_per_region)?;
        for ((region, now), goal) in regions.iter().zip(&current).zip(&goal) {
            if goal > now {
                let config = new_config(group, release, machines, &of_group, options);
                for _ in *now..*goal {
                    actions.push(ScaleAction::Create {
                        group: group.clone(),
                        region: region.clone(),
                        config: Box::new(config.clone()),
                    });
                }
            }
            let surplus = usize::try_from(now.saturating_sub(*goal)).unwrap_or(usize::MAX);
            let here = of_group.iter().filter(|m| m.region == *region);
            actions.extend(here.take(surplus).map(|m| ScaleAction::Destroy {
                group: group.clone(),
                region: region.clone(),
                machine: m.id.clone(),
                expected: m.instance.clone(),
            }));
        }
    }
    Ok(actions)
}

fn is_of(machine: &ScaleMachine, group: &GroupName) -> bool {
    machine.config.process_group() == group.as_str()
}

fn len(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn wanted(count: Count, now: usize) -> Result<u64, ScaleError> {
    let total = match count {
        Count::To(n) => u64::from(n),
        Count::By(change) => len(now).saturating_add_signed(change),
    };
    if total > u64::from(MAX_COUNT) {
        return Err(ScaleError::TooMany(total));
    }
    Ok(total)
}

/// Returns the regions to look at, each once: those asked for, else the group's pool, else those in
/// use by any group, else the primary one.
fn regions(group: &GroupName, machines: &[ScaleMachine], options: &ScaleOptions) -> Vec<Region> {
    let pool = options
        .pools
        .get(group)
        .filter(|_| options.regions.is_empty());
    let mut regions: Vec<Region> = Vec::new();
    for region in pool.unwrap_or(&options.regions) {
        if !regions.contains(region) {
            regions.push(region.clone());
        }
    }
    if regions.is_empty() {
        regions.extend(machines.iter().map(|m| m.region.clone()));
        regions.sort();
        regions.dedup();
    }
    if regions.is_empty() {
        regions.push(options.primary_region.clone());
    }
    regions
}

/// Returns how many Machines each region is to have: added round robin from the first region on,
/// removed round robin from the second on.
fn converge(
    group: &GroupName,
    total: u64,
    current: &[u64],
    max: Option<u32>,
) -> Result<Vec<u64>, ScaleError> {
    let regions = current.len();
    let limit = max.map_or(u64::MAX, u64::from);
    if limit.saturating_mul(len(regions)) < total {
        return Err(ScaleError::NoRoom {
            group: group.clone(),
            total,
            regions,
            max: max.unwrap_or(0),
        });
    }
    let mut goal: Vec<u64> = current.iter().map(|n| (*n).min(limit)).collect();
    let mut sum: u64 = goal.iter().sum();
    let mut at = 0;
    while sum < total {
        if goal[at] < limit {
            goal[at] += 1;
            sum += 1;
        }
        at = (at + 1) % regions;
    }
    let mut at = 1 % regions.max(1);
    while sum > total {
        if goal[at] > 0 {
            goal[at] -= 1;
            sum -= 1;
        }
        at = (at + 1) % regions;
    }
    Ok(goal)
}

/// Returns a new Machine's configuration: a copy of the group's first Machine, else the
/// release's, with the size of another Machine where fly.toml sets none.
fn new_config(
    group: &GroupName,
    release: &Release,
    machines: &[ScaleMachine],
    of_group: &[&ScaleMachine],
    options: &ScaleOptions,
) -> MachineConfig {
    if let Some(first) = of_group.first() {
        let mut config = first.config.clone();
        merge::stand_alone(&mut config);
        return config;
    }
    let spec = release.groups.get(group).cloned().unwrap_or(GroupSpec {
        config: MachineConfig::default(),
        sets_guest: false,
        test_machines: Vec::new(),
        volumes: Vec::new(),
    });
    let default = default_group(&release.groups);
    let has_size = |m: &&ScaleMachine| m.config.guest.is_some();
    let mut sized: Vec<&ScaleMachine> = machines.iter().filter(has_size).collect();
    sized.sort_by_key(|m| (!is_of(m, &default), m.config.process_group().to_owned()));
    let like = sized.first().and_then(|m| m.config.guest.clone());
    let mark = Mark {
        release: &release.id,
        version: release.version,
    };
    merge::for_new(&spec, group, like.or_else(|| options.guest.clone()), mark)
}

/// Returns the plan in flyctl's words, one line for each group, region and size.
#[must_use]
pub fn describe(actions: &[ScaleAction], machines: &[ScaleMachine]) -> Vec<String> {
    let mut sums: BTreeMap<(&GroupName, &Region, String), i64> = BTreeMap::new();
    for action in actions {
        let (group, region, guest, change) = match action {
            ScaleAction::Create {
                group,
                region,
                config,
            } => (group, region, config.guest.clone(), 1),
            ScaleAction::Destroy {
                group,
                region,
                machine,
                ..
            } => {
                let found = machines.iter().find(|m| m.id == *machine);
                let guest = found.and_then(|m| m.config.guest.clone());
                (group, region, guest, -1)
            }
        };
        let size = guest.unwrap_or_default().size_name();
        *sums.entry((group, region, size)).or_default() += change;
    }
    let line = |((group, region, size), change): ((&GroupName, &Region, String), i64)| {
        format!("{change:+4} machines for group '{group}' on region '{region}' of size '{size}'")
    };
    sums.into_iter().map(line).collect()
}

// === impl ScaleMachine ===

impl From<&Machine> for ScaleMachine {
    fn from(machine: &Machine) -> Self {
        Self {
            id: machine.id.clone(),
            instance: machine.instance_id.clone(),
            region: machine.region.clone(),
            config: machine.config.clone(),
        }
    }
}

impl From<&MachineSpec> for ScaleMachine {
    fn from(spec: &MachineSpec) -> Self {
        Self {
            id: spec.id.clone(),
            instance: spec.instance_id.clone(),
            region: spec.region.clone(),
            config: spec.config.clone(),
        }
    }
}
