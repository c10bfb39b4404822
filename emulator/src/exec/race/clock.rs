//! Vector clocks: what lies before what.

/// Number of an agent: something that acts in an order of its own. See [`super::Race`] for who they are.
pub(crate) type Agent = u16;

/// Of each agent the latest time known to lie before; agents beyond the end are at zero, before everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times(Vec<u32>);

impl Times {
    #[inline(always)]
    pub(super) fn get(&self, agent: Agent) -> u32 {
        self.0.get(usize::from(agent)).copied().unwrap_or(0)
    }

    /// Raises one agent's time, never lowers it.
    pub(super) fn raise(&mut self, agent: Agent, time: u32) {
        let at = usize::from(agent);
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] = self.0[at].max(time);
    }

    /// The later of both, agent by agent.
    pub(super) fn join(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine = (*mine).max(*theirs);
        }
    }

    /// Does all of the other lie before this?
    fn covers(&self, other: &Self) -> bool {
        other.0.iter().enumerate().all(|(agent, time)| self.0.get(agent).copied().unwrap_or(0) >= *time)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// What a release hands to an acquire: everything before it, for generic accesses and for asynchronous ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clock {
    pub(super) generic: Times,
    pub(super) visible: Times,
    /// The releasing warp has read what other CTAs released.
    pub(super) foreign: bool,
    /// What lies before fences of device scope, and whether the warp has read, strongly, what may be of another CTA: a
    /// barrier may stand between the fence and the flag.
    pub(super) fenced_for_device: Times,
    pub(super) pending_foreign: bool,
}

impl Clock {
    /// Does everything that the other hands over lie before this, as far as ordinary accesses see it?
    pub(crate) fn is_after(&self, other: &Self) -> bool {
        self.generic.covers(&other.generic)
    }

    /// Adds what another release handed over, for barriers that gather several.
    pub(crate) fn join(&mut self, other: &Self) {
        self.generic.join(&other.generic);
        self.visible.join(&other.visible);
        self.foreign |= other.foreign;
        self.fenced_for_device.join(&other.fenced_for_device);
        self.pending_foreign |= other.pending_foreign;
    }
}
