//! `scale count`: which Machines to create and destroy so that groups have the asked count
//! (process-groups-and-deploy.md 5.1).
//!
//! Pure. Called by whoever carries the plan out; the copies run what the first Machine of the
//! group runs, fly.toml is asked only where a group has no Machine.

pub mod formation;
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
    /// As `max_per_region`, kept from an earlier time; a region that has more keeps it.
    pub kept_limits: BTreeMap<GroupName, u32>,
    /// The size that the next Machine of a group without any is to have, kept from an earlier time.
    pub kept_sizes: BTreeMap<GroupName, Guest>,
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
        actions.extend(plan_group(group, *count, release, machines, options)?);
    }
    Ok(actions)
}

fn plan_group(
    group: &GroupName,
    count: Count,
    release: &Release,
    machines: &[ScaleMachine],
    options: &ScaleOptions,
) -> Result<Vec<ScaleAction>, ScaleError> {
    let regions = regions(group, machines, options);
    let of_group: Vec<&ScaleMachine> = machines.iter().filter(|m| is_of(m, group)).collect();
    let total = wanted(count, of_group.len())?;
    let mut current: Vec<u64> = Vec::new();
    for region in &regions {
        let here = of_group.iter().filter(|m| m.region == *region).count();
        current.push(len(here));
    }
    let goal = converge(group, total, &current, &options.limits(group, &current))?;
    let mut actions = Vec::new();
    let mut gone: Vec<&ScaleMachine> = Vec::new();
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
        gone.extend(first_to_go(&of_group, region).into_iter().take(surplus));
    }
    if actions.is_empty() {
        keep_one_that_runs(&of_group, &regions, &mut gone);
    }
    actions.extend(gone.into_iter().map(|m| ScaleAction::Destroy {
        group: group.clone(),
        region: m.region.clone(),
        machine: m.id.clone(),
        expected: m.instance.clone(),
    }));
    Ok(actions)
}

/// Where nothing but standbys would be left, lets one of those go instead of one that runs: they
/// would wait for nobody.
fn keep_one_that_runs<'a>(
    of_group: &[&'a ScaleMachine],
    regions: &[Region],
    gone: &mut [&'a ScaleMachine],
) {
    let stays = |m: &&&ScaleMachine| !gone.iter().any(|other| other.id == m.id);
    let left: Vec<&&ScaleMachine> = of_group.iter().filter(stays).collect();
    if left.iter().any(|m| !m.is_standby()) {
        return;
    }
    let instead = left.iter().find(|m| regions.contains(&m.region));
    let runs = gone.iter_mut().find(|m| !m.is_standby());
    if let (Some(runs), Some(instead)) = (runs, instead) {
        *runs = instead;
    }
}

/// Returns a group's Machines of a region in the order in which they go. Standbys first: one that
/// runs is worth more than one that waits for it to be lost.
fn first_to_go<'a>(of_group: &[&'a ScaleMachine], region: &Region) -> Vec<&'a ScaleMachine> {
    let here = of_group.iter().copied().filter(|m| m.region == *region);
    let (mut standbys, seats): (Vec<_>, Vec<_>) = here.partition(|m| m.is_standby());
    standbys.extend(seats);
    standbys
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
    limits: &[u64],
) -> Result<Vec<u64>, ScaleError> {
    let regions = current.len();
    let room = limits.iter().fold(0_u64, |sum, n| sum.saturating_add(*n));
    if room < total {
        let max = limits.iter().min().copied().unwrap_or(0);
        return Err(ScaleError::NoRoom {
            group: group.clone(),
            total,
            regions,
            max: u32::try_from(max).unwrap_or(u32::MAX),
        });
    }
    let each = current.iter().zip(limits);
    let mut goal: Vec<u64> = each.map(|(now, limit)| (*now).min(*limit)).collect();
    let mut sum: u64 = goal.iter().sum();
    let mut at = 0;
    while sum < total {
        if goal[at] < limits[at] {
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
    let like = options.kept_sizes.get(group).cloned().or(like);
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

// === impl ScaleOptions ===

impl ScaleOptions {
    /// Returns how many Machines of a group each region may have; `current` are those it has.
    fn limits(&self, group: &GroupName, current: &[u64]) -> Vec<u64> {
        let limit = |now: &u64| match (self.max_per_region, self.kept_limits.get(group)) {
            (Some(max), _) => u64::from(max),
            (None, Some(kept)) => u64::from(*kept).max(*now),
            (None, None) => u64::MAX,
        };
        current.iter().map(limit).collect()
    }
}

// === impl ScaleMachine ===

impl ScaleMachine {
    /// Returns whether it waits for another Machine to be lost.
    fn is_standby(&self) -> bool {
        !self.config.standbys.is_empty()
    }
}

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
