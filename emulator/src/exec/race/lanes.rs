//! Lanes of one store that write different values to the same place: one of them wins, PTX does not say which.

use crate::exec::lanes::{LANES, lanes_of};
use crate::fault::{FaultKind, MemorySpace};

/// Checks a store of `count` elements a lane, in lanes that store to one space; names the lane to blame.
pub(in crate::exec) fn lanes_agree(
    space: MemorySpace,
    addresses: &[u64; LANES],
    values: &[[u64; LANES]; 4],
    bytes: u32,
    count: u32,
    mask: u32,
) -> Result<(), (FaultKind, usize)> {
    let size = u64::from(bytes * count);
    let mut last = None;
    let apart = lanes_of(mask).all(|lane| {
        let above = last.is_none_or(|last| addresses[lane] >= last);
        last = Some(addresses[lane].saturating_add(size));
        above
    });
    if apart {
        return Ok(());
    }
    let mut order = [(0, 0); LANES];
    let mut used = 0;
    for lane in lanes_of(mask) {
        order[used] = (addresses[lane], lane);
        used += 1;
    }
    let order = &mut order[..used];
    order.sort_unstable();
    let keep = u64::MAX >> (64 - 8 * bytes);
    for pair in order.windows(2) {
        // Addresses are multiples of the size, so lanes overlap wholly or not at all.
        let ((address, first), (other, second)) = (pair[0], pair[1]);
        let differ = |values: &[u64; LANES]| (values[first] ^ values[second]) & keep != 0;
        if address == other && values[..count as usize].iter().any(differ) {
            let (bytes, lanes) = (bytes * count, [first as u32, second as u32]);
            return Err((FaultKind::LanesDisagree { space, address, bytes, lanes }, second));
        }
    }
    Ok(())
}
