//! What the proxy asks of a Machine without the server: up for a request, to rest when idle (D6).

use hangar_api::error::{ErrorKind, Failure};
use hangar_api::logs::Provider;
use hangar_api::machine::Service;
use hangar_api::machine::service::Autostop;
use hangar_api::seam::IdleMachine;

use super::Actor;
use crate::machine::lifecycle::{self, Input};

impl Actor {
    pub(super) async fn wake(&mut self) -> Result<(), Failure> {
        self.may_be_asked()?;
        let spec = &self.record.active.spec;
        let mut services = spec.config.services.iter();
        if !spec.config.standbys.is_empty() {
            return denied("the machine is a standby: it starts when another is lost");
        }
        if !services.any(Service::allows_autostart) {
            return denied("no service of the machine allows autostart");
        }
        self.try_turn(self.record.clone(), Input::Wake).await
    }

    pub(super) async fn idle(&mut self, idle: IdleMachine) -> Result<(), Failure> {
        self.may_be_asked()?;
        if self.record.active.spec.config.autostop() == Autostop::Off {
            return denied("a service of the machine has autostop off");
        }
        let (how, verb) = if idle.suspend && self.rules(&self.record).can_suspend {
            (lifecycle::Idle::Suspend, "autosuspending")
        } else {
            (lifecycle::Idle::Stop, "autostopping")
        };
        let start = idle.starts;
        let input = Input::Idle { start, how };
        self.try_turn(self.record.clone(), input).await?;
        let spec = &self.record.active.spec;
        let text = format!(
            "App {} has excess capacity, {verb} machine {}. {} out of {} machines left running \
             (region={}, process group={})",
            spec.app,
            spec.id,
            idle.left,
            idle.all,
            spec.region,
            spec.config.group_or_app()
        );
        self.shared
            .logs
            .write(&spec.id, Provider::Proxy, false, start, &text);
        Ok(())
    }

    /// Refuses while the Machine is kept from the proxy.
    fn may_be_asked(&self) -> Result<(), Failure> {
        if self.record.active.spec.cordoned {
            return denied("the machine is cordoned");
        }
        // A lease ends by itself: whoever asks may ask again.
        if self
            .leased_until
            .is_some_and(|until| self.shared.env.now() < until)
        {
            let text = "somebody holds a lease of the machine";
            return Err(Failure::new(ErrorKind::Unavailable, text));
        }
        Ok(())
    }
}

fn denied(text: &str) -> Result<(), Failure> {
    Err(Failure::new(ErrorKind::FailedPrecondition, text))
}
