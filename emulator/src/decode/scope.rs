//! What is declared in one function: registers by block, and the names of variables. Declaring costs the same whatever
//! the count, since a text may declare thousands of registers in a few bytes and use none.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::operands::{Register, Symbol};
use crate::program::Slot;
use crate::scalar::Scalar;

/// Most digits of a register's number: a function has at most 65535 registers of a width.
const DIGITS: usize = 5;

/// The registers one block declares.
#[derive(Default)]
pub(super) struct Scope<'t> {
    single: HashMap<&'t str, Scalar>,
    /// `%r<4>` by `%r`: the registers `%r0` to `%r3`.
    ranges: HashMap<&'t str, (u64, Scalar)>,
    /// By prefix the least number that a declaration has taken already.
    least: HashMap<String, u64>,
    /// Registers that were named so far.
    slots: RefCell<HashMap<String, Register>>,
}

/// Every way to read a name as a prefix and a number as `%r<..>` declares it.
fn splits(name: &str) -> impl Iterator<Item = (&str, u64)> {
    let digits = name.bytes().rev().take(DIGITS).take_while(u8::is_ascii_digit).count();
    (1..=digits).filter_map(|count| {
        let (prefix, number) = name.split_at(name.len() - count);
        let plain = count == 1 || !number.starts_with('0');
        Some((prefix, number.parse().ok().filter(|_| plain)?))
    })
}

impl<'t> Scope<'t> {
    /// Declares a register, or `count` of them; false if one of them is declared already.
    pub(super) fn declare(&mut self, name: &'t str, count: Option<u64>, scalar: Scalar) -> bool {
        if count == Some(0) {
            return true;
        }
        let first = if count.is_some() { format!("{name}0") } else { name.to_owned() };
        let taken = |count: u64| self.least.get(name).is_some_and(|least| *least < count);
        if self.scalar(&first).is_some() || count.is_some_and(taken) {
            return false;
        }
        for (prefix, number) in splits(&first) {
            let least = self.least.entry(prefix.to_owned()).or_insert(number);
            *least = number.min(*least);
        }
        match count {
            Some(count) => drop(self.ranges.insert(name, (count, scalar))),
            None => drop(self.single.insert(name, scalar)),
        }
        true
    }

    fn scalar(&self, name: &str) -> Option<Scalar> {
        if let Some(scalar) = self.single.get(name) {
            return Some(*scalar);
        }
        splits(name).find_map(|(prefix, number)| {
            let (count, scalar) = self.ranges.get(prefix)?;
            (number < *count).then_some(*scalar)
        })
    }

    /// Finds a register; its slot is given out when it is named first.
    pub(super) fn register(&self, name: &str, slot: impl FnOnce(Scalar) -> Slot) -> Option<Register> {
        if let Some(found) = self.slots.borrow().get(name) {
            return Some(*found);
        }
        let scalar = self.scalar(name)?;
        let register = Register { slot: slot(scalar), scalar };
        self.slots.borrow_mut().insert(name.to_owned(), register);
        Some(register)
    }
}

/// The names of variables: the module's, shared by its functions, and the function's own.
pub(super) struct Symbols<'t> {
    module: Rc<HashMap<&'t str, Symbol>>,
    own: HashMap<&'t str, Symbol>,
    /// What a dynamic shared array is in this function.
    dynamic: Symbol,
}

impl<'t> Symbols<'t> {
    pub(super) fn new(module: Rc<HashMap<&'t str, Symbol>>) -> Self {
        Self { module, own: HashMap::new(), dynamic: Symbol::Dynamic }
    }

    /// Says where dynamic shared memory begins.
    pub(super) fn set_dynamic(&mut self, offset: u32) {
        self.dynamic = Symbol::Shared(offset);
    }

    pub(super) fn insert(&mut self, name: &'t str, symbol: Symbol) {
        self.own.insert(name, symbol);
    }

    pub(super) fn get(&self, name: &str) -> Option<&Symbol> {
        match self.own.get(name).or_else(|| self.module.get(name)) {
            Some(Symbol::Dynamic) => Some(&self.dynamic),
            found => found,
        }
    }
}
