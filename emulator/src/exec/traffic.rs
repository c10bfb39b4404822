//! What memory requests of a warp cost: 32-byte sectors of global memory, wavefronts of shared memory.
//!
//! Shared memory has 32 banks of four bytes. A request is served in phases of up to 128 bytes: all lanes at once for
//! accesses of up to four bytes, half the warp for eight, a quarter for sixteen, one matrix of eight rows for `ldmatrix`. A
//! phase takes as many wavefronts as the bank asked for the most different words has to deliver; lanes that want the same
//! word share it. What goes beyond one wavefront a phase is a conflict.

use super::lanes::{LANES, lanes_of};
use crate::decode::{LOCAL_BASE, SHARED_BASE, WINDOW};
use crate::report::Counters;
use crate::scalar::Space;

/// Bytes that all banks deliver together.
const ROW: u32 = 128;
/// Bytes of the least unit in which global memory is fetched, as a shift.
const SECTOR: u32 = 5;

// Generic addresses of shared memory have the banks of the addresses inside it.
const _: () = assert!(SHARED_BASE.is_multiple_of(ROW as u64));

/// Whether a request reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Load,
    Store,
}

impl Counters {
    /// Counts a request of `bytes` for each lane.
    pub(super) fn request(
        &mut self,
        direction: Direction,
        space: Space,
        addresses: &[u64; LANES],
        mask: u32,
        bytes: u32,
    ) {
        let all = |lanes: u32| u64::from(lanes.count_ones() * bytes);
        let (shared, local) = match space {
            Space::Shared | Space::Cluster => (mask, 0),
            Space::Local => (0, mask),
            Space::Generic => split(addresses, mask),
            Space::Global | Space::Param => (0, 0),
        };
        let global = mask & !shared & !local;
        if global != 0 {
            self.global(direction, addresses, global, all(global));
        }
        if shared != 0 {
            self.shared(addresses, shared, bytes, all(shared));
        }
        self.local_bytes += all(local);
    }

    /// Counts a request to global memory of `bytes` in all.
    #[inline]
    pub(super) fn global(&mut self, direction: Direction, addresses: &[u64; LANES], mask: u32, bytes: u64) {
        let (all_bytes, requests, all_sectors) = match direction {
            Direction::Load => {
                (&mut self.global_load_bytes, &mut self.global_load_requests, &mut self.global_load_sectors)
            }
            Direction::Store => (
                &mut self.global_store_bytes,
                &mut self.global_store_requests,
                &mut self.global_store_sectors,
            ),
        };
        *all_bytes += bytes;
        *requests += u64::from(mask != 0);
        *all_sectors += sectors(addresses, mask);
    }

    /// Counts a request to shared memory of `bytes` for each lane, `all` together.
    #[inline]
    pub(super) fn shared(&mut self, addresses: &[u64; LANES], mask: u32, bytes: u32, all: u64) {
        let (wavefronts, phases) = wavefronts(addresses, mask, bytes);
        self.shared_bytes += all;
        self.shared_requests += u64::from(mask != 0);
        self.shared_wavefronts += wavefronts;
        self.shared_conflicts += wavefronts - phases;
    }
}

/// The lanes whose generic addresses lie in shared and in local memory.
fn split(addresses: &[u64; LANES], mask: u32) -> (u32, u32) {
    let inside = |base: u64| {
        lanes_of(mask)
            .filter(|lane| addresses[*lane].wrapping_sub(base) < WINDOW)
            .fold(0, |lanes, lane| lanes | 1 << lane)
    };
    (inside(SHARED_BASE), inside(LOCAL_BASE))
}

/// Different sectors that the lanes touch; an access is aligned to its size and lies in one.
fn sectors(addresses: &[u64; LANES], mask: u32) -> u64 {
    let (mut count, mut last) = (0, None);
    for lane in lanes_of(mask) {
        let sector = addresses[lane] >> SECTOR;
        if last == Some(sector) {
            continue;
        }
        if last > Some(sector) {
            let mut all: Vec<u64> = lanes_of(mask).map(|lane| addresses[lane] >> SECTOR).collect();
            all.sort_unstable();
            all.dedup();
            return all.len() as u64;
        }
        (count, last) = (count + 1, Some(sector));
    }
    count
}

/// Wavefronts of a request, and its phases with an active lane: the least number of wavefronts.
fn wavefronts(addresses: &[u64; LANES], mask: u32, bytes: u32) -> (u64, u64) {
    let unit = bytes.max(4);
    let lanes = (ROW / unit) as usize;
    let (mut all, mut phases) = (0, 0);
    for (at, part) in addresses.chunks_exact(lanes).enumerate() {
        let active = mask >> (at * lanes) & (u32::MAX >> (LANES - lanes));
        if active != 0 {
            phases += 1;
            all += phase(part, active, unit.trailing_zeros());
        }
    }
    (all, phases)
}

/// Wavefronts of one phase: the most different units that fall on the same banks.
#[inline]
fn phase(addresses: &[u64], active: u32, shift: u32) -> u64 {
    let groups = (ROW >> shift) as usize;
    let mut first = [None; LANES];
    for lane in lanes_of(active) {
        let unit = addresses[lane] >> shift;
        let kept = first[unit as usize % groups].get_or_insert(unit);
        if *kept != unit {
            return crowded(addresses, active, shift);
        }
    }
    1
}

#[cold]
fn crowded(addresses: &[u64], active: u32, shift: u32) -> u64 {
    let groups = (ROW >> shift) as usize;
    let mut units: Vec<u64> = lanes_of(active).map(|lane| addresses[lane] >> shift).collect();
    units.sort_unstable();
    units.dedup();
    let mut most = [0; LANES];
    units.iter().for_each(|unit| most[*unit as usize % groups] += 1);
    most.into_iter().max().unwrap_or(0)
}
