//! Two programs that take turns on one machine.

use nabla_host::parameters::Parameters;

use crate::{
    failure::Failure,
    measure::{Bench, Failed, Item, On, Sample, Verified},
    worker::{Errors, Isolated},
};

/// What base's candidate is known by.
pub(super) const BASE: Item = Item::Candidate(0);
/// What head's candidate is known by.
pub(super) const HEAD: Item = Item::Candidate(1);

/// A bench of two: candidate 0 is base's default, candidate 1 head's. Each lives in a worker of its own build; while one
/// is timed the other waits for its next request.
#[derive(Debug)]
pub(super) struct Duel {
    pub(super) base: Isolated,
    pub(super) head: Isolated,
}

impl Duel {
    fn side(&mut self, number: usize) -> &mut Isolated {
        if number == 0 { &mut self.base } else { &mut self.head }
    }
}

impl Bench for Duel {
    fn verify(
        &mut self,
        number: usize,
        parameters: &Parameters,
        on: On,
    ) -> Result<Result<Verified, (Failed, Option<Errors>)>, Failure> {
        self.side(number).verify(number, parameters, on)
    }

    fn round(&mut self, order: &[Item]) -> Result<Vec<Result<Sample, Failed>>, Failure> {
        let mut results = Vec::with_capacity(order.len());
        for &item in order {
            let side = self.side(usize::from(item == HEAD));
            results.append(&mut side.round(&[item])?);
        }
        Ok(results)
    }

    fn renew(&mut self) -> Result<(), Failure> {
        self.base.renew()?;
        self.head.renew()
    }
}
