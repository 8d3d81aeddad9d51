//! Whether a wait for a Machine is met. Pure.
//!
//! A wait is answered from the sequence of events, not from the latest state alone: a start that
//! is followed by a crash at once was a start.

use hangar_api::event::MachineEvent;
use hangar_api::id::EventId;
use hangar_api::machine::{MachineSpec, MachineState, Observed};

/// What a wait is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// Any of these.
    pub(crate) states: Vec<Wanted>,
    /// Of this version alone.
    pub(crate) instance: Option<String>,
    /// Only what came after this event counts, the state now included.
    pub(crate) from_event: Option<String>,
    /// The newest event when the wait began.
    pub(crate) baseline: Option<EventId>,
}

/// A state, or rest of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// This one.
    State(MachineState),
    /// Any that is not on the way to another.
    Settled,
}

/// Where a wait stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is met.
    Met {
        /// The state that met it.
        state: MachineState,
        /// The event that led there, where one is known.
        event: Option<EventId>,
    },
    /// The version waited for has given way to another.
    Replaced,
    /// Not yet; the state now.
    Waiting(MachineState),
}

// === impl Wanted ===

impl Wanted {
    /// Reads a word of the query.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        match word {
            "settled" => Some(Self::Settled),
            other => other.parse().ok().map(Self::State),
        }
    }

    fn takes(self, state: MachineState) -> bool {
        match self {
            Self::State(wanted) => wanted == state,
            Self::Settled => state.is_settled(),
        }
    }
}

// === impl Wait ===

impl Wait {
    /// Returns where the wait stands, given the Machine as it is now.
    pub(crate) fn judge(
        &self,
        state: MachineState,
        spec: &MachineSpec,
        observed: Option<&Observed>,
    ) -> Verdict {
        let events = observed.map_or(&[][..], |o| o.events.as_slice());
        let newest = events.first().map(|event| event.id.clone());
        if let Some(instance) = &self.instance {
            let gone = state == MachineState::Destroyed && self.takes(state);
            if *instance != spec.instance_id.as_str() && !gone {
                return Verdict::Replaced;
            }
            if !gone && observed.is_none_or(|o| o.instance_id.as_str() != instance) {
                return Verdict::Waiting(state);
            }
        }
        if self.from_event.is_none() && self.takes(state) {
            return Verdict::Met {
                state,
                event: newest,
            };
        }
        let version_only = self.instance.is_some() && self.from_event.is_none();
        let fresh = if version_only {
            of_this_version(events)
        } else {
            let after = self.from_event.as_deref();
            newer_than(
                events,
                after.or(self.baseline.as_ref().map(EventId::as_str)),
            )
        };
        // That it rests is said by where it is now: on its way to another version it passes states
        // in which others rest.
        if state.is_settled() && self.states.contains(&Wanted::Settled) && !fresh.is_empty() {
            return Verdict::Met {
                state,
                event: newest,
            };
        }
        let hit = fresh.into_iter().find_map(|event| {
            let state: MachineState = event.status.parse().ok()?;
            let wanted = self.states.contains(&Wanted::State(state));
            wanted.then(|| (state, event.id.clone()))
        });
        match hit {
            Some((state, event)) => Verdict::Met {
                state,
                event: Some(event),
            },
            None => Verdict::Waiting(state),
        }
    }

    /// Returns whether the end of the Machine meets it.
    pub(crate) fn is_for_the_end(&self) -> bool {
        self.takes(MachineState::Destroyed)
    }

    fn takes(&self, state: MachineState) -> bool {
        self.states.iter().any(|wanted| wanted.takes(state))
    }
}

/// Returns the events that came after this one. One that has left the list, or was never in it,
/// is placed by its time.
fn newer_than<'a>(events: &'a [MachineEvent], after: Option<&str>) -> Vec<&'a MachineEvent> {
    let Some(after) = after else {
        return events.iter().collect();
    };
    match events.iter().position(|event| event.id.as_str() == after) {
        Some(at) => events[..at].iter().collect(),
        None => events
            .iter()
            .take_while(|event| event.id.as_str() > after)
            .collect(),
    }
}

/// Returns the events that speak of the version the Machine has now, newest first: those after
/// the last launch or update, without the exit of the version before.
fn of_this_version(events: &[MachineEvent]) -> Vec<&MachineEvent> {
    let is_boundary = |event: &MachineEvent| {
        event.kind == "launch" || (event.kind == "update" && event.status == "replacing")
    };
    let end = events.iter().position(is_boundary).unwrap_or(events.len());
    let mut replaced = events.get(end).is_some_and(|event| event.kind == "update");
    let mut own = Vec::new();
    for event in events[..end].iter().rev() {
        if replaced && event.kind == "exit" {
            continue;
        }
        if event.kind == "update" || event.kind == "start" {
            replaced = false;
        }
        own.push(event);
    }
    own.reverse();
    own
}

#[cfg(test)]
mod tests;
