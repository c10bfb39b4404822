//! What a launch does in which order, and where its operands lie.

use std::cmp::Reverse;

use super::{AttentionArgs, Pattern, micro};

/// Packed keys and values of the heads in flight may take this much; one head always may.
const PACKED_BYTES: usize = 256 << 20;
/// Keys of a packing step when a key block is longer: even, so that pairs stay together.
const CHUNK_KEYS: usize = 64;
/// The list of a dense row: its only block is the whole sequence.
const WHOLE: &[i32] = &[0];

/// How the elements of K and V reach the kernels.
///
/// Rows of K hold `depth` words, rows of V `channels` words. A row of V is one key, or with pairs two keys of
/// the same block, channel by channel; an odd block ends with a zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Elements per word.
    pub(super) word: usize,
    /// Words of a query or key.
    pub(super) depth: usize,
    /// Words from one row of K to the next.
    pub(super) k_stride: usize,
    /// Words of a row of V, padded to what the register blocks cover.
    pub(super) channels: usize,
    /// Whether K is read from a packed copy.
    pub(super) pack_k: bool,
    /// Whether V is read from a packed copy.
    pub(super) pack_v: bool,
}

impl Layout {
    /// Chooses the layout: `wide` says that elements are f32, `word` how many make a word.
    fn new(head_dim: usize, wide: bool, word: usize) -> Self {
        let channels = micro::padded_rows(head_dim);
        let depth = head_dim.div_ceil(word);
        let direct = wide && channels == head_dim;
        if word == 1 {
            let stride = channels;
            Self { word, depth, k_stride: stride, channels, pack_k: !direct, pack_v: !direct }
        } else {
            Self {
                word,
                depth,
                k_stride: depth,
                channels,
                pack_k: !head_dim.is_multiple_of(word),
                pack_v: true,
            }
        }
    }
}

/// One work item: queries `start..start + len` of one head, which attend to the same keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueryTile {
    pub(super) head: usize,
    pub(super) start: usize,
    pub(super) len: usize,
    /// Row of the lists.
    row: usize,
}

/// One packing step: keys `start..start + len` of one head, whose first row of V is `v_row`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    pub(super) head: usize,
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) v_row: usize,
}

/// Heads whose packed keys and values are in memory together.
#[derive(Debug)]
pub(super) struct Wave {
    /// First head.
    pub(super) first_head: usize,
    /// What is packed before the tiles run.
    pub(super) chunks: Vec<Chunk>,
    /// Heads outermost, so that keys and values stay in cache; longest lists first, so that threads end together.
    pub(super) tiles: Vec<QueryTile>,
}

/// A launch, laid out.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) layout: Layout,
    pub(super) waves: Vec<Wave>,
    pattern: Pattern<'a>,
    kv_starts: Vec<usize>,
    /// First row of V of every key block, and the end.
    v_starts: Vec<usize>,
    heads_per_wave: usize,
}

impl<'a> Plan<'a> {
    /// Lays out a launch whose arguments have been checked.
    pub(super) fn new<T>(args: &AttentionArgs<'a, T>, word: usize) -> Self {
        let shape = args.shape;
        let layout = Layout::new(shape.head_dim, size_of::<T>() == size_of::<f32>(), word);
        let (q_starts, kv_starts) = match &args.pattern {
            Pattern::Dense => (vec![0, shape.seqlen_q], vec![0, shape.seqlen_k]),
            Pattern::Blocks(lists) => (widen(lists.q_starts), widen(lists.kv_starts)),
        };
        let v_starts: Vec<usize> = std::iter::once(0)
            .chain(kv_starts.windows(2).scan(0, |rows, block| {
                *rows += (block[1] - block[0]).div_ceil(word);
                Some(*rows)
            }))
            .collect();
        let pattern = args.pattern;
        let mut plan = Self { layout, waves: Vec::new(), pattern, kv_starts, v_starts, heads_per_wave: 1 };
        let bytes = 4 * plan.packed_words_per_head();
        plan.heads_per_wave = match bytes {
            0 => shape.batch_heads.max(1),
            _ => (PACKED_BYTES / bytes).clamp(1, shape.batch_heads.max(1)),
        };
        let q_blocks = q_starts.len() - 1;
        for first_head in (0..shape.batch_heads).step_by(plan.heads_per_wave) {
            let heads = first_head..shape.batch_heads.min(first_head + plan.heads_per_wave);
            let mut wave = Wave { first_head, chunks: Vec::new(), tiles: Vec::new() };
            for head in heads {
                plan.add_chunks(head, q_blocks, &mut wave.chunks);
                plan.add_tiles(head, &q_starts, args.tile.block_m, &mut wave.tiles);
            }
            plan.waves.push(wave);
        }
        plan
    }

    /// Words of packed K, then of packed V, of one head.
    pub(super) fn packed_words(&self) -> (usize, usize) {
        let keys = self.kv_starts.last().copied().unwrap_or(0);
        let rows = self.v_starts.last().copied().unwrap_or(0);
        let k = if self.layout.pack_k { keys * self.layout.k_stride } else { 0 };
        let v = if self.layout.pack_v { rows * self.layout.channels } else { 0 };
        (k, v)
    }

    fn packed_words_per_head(&self) -> usize {
        let (k, v) = self.packed_words();
        k + v
    }

    /// Words of packed K and V of a wave.
    pub(super) fn packed_words_per_wave(&self) -> usize {
        self.heads_per_wave * self.packed_words_per_head()
    }

    fn list(&self, row: usize) -> &'a [i32] {
        match &self.pattern {
            Pattern::Dense => WHOLE,
            Pattern::Blocks(lists) => {
                // The check made sure that counts are not negative and at most `max_blocks`.
                let count = lists.kv_num_blocks[row] as usize;
                &lists.kv_indices[row * lists.max_blocks..][..count]
            }
        }
    }

    /// Returns the keys of a query tile.
    pub(super) fn keys(&self, tile: &QueryTile) -> Keys<'_> {
        Keys { plan: self, list: self.list(tile.row), offset: 0 }
    }

    fn add_tiles(&self, head: usize, q_starts: &[usize], block_m: usize, tiles: &mut Vec<QueryTile>) {
        let first = tiles.len();
        let q_blocks = q_starts.len() - 1;
        for (i, block) in q_starts.windows(2).enumerate() {
            let row = match self.pattern {
                Pattern::Dense => 0,
                Pattern::Blocks(_) => head * q_blocks + i,
            };
            let tile = |start| QueryTile { head, start, len: block_m.min(block[1] - start), row };
            tiles.extend((block[0]..block[1]).step_by(block_m).map(tile));
        }
        if matches!(self.pattern, Pattern::Blocks(_)) {
            tiles[first..].sort_by_key(|t| Reverse(self.list(t.row).len() * t.len));
        }
    }

    fn add_chunks(&self, head: usize, q_blocks: usize, chunks: &mut Vec<Chunk>) {
        if self.packed_words_per_head() == 0 {
            return;
        }
        let mut listed = vec![false; self.kv_starts.len() - 1];
        match self.pattern {
            Pattern::Dense => listed.fill(true),
            Pattern::Blocks(_) => {
                for row in head * q_blocks..(head + 1) * q_blocks {
                    self.list(row).iter().for_each(|&b| listed[b as usize] = true);
                }
            }
        }
        for (b, block) in self.kv_starts.windows(2).enumerate().filter(|(b, _)| listed[*b]) {
            for start in (block[0]..block[1]).step_by(CHUNK_KEYS) {
                let len = CHUNK_KEYS.min(block[1] - start);
                chunks.push(Chunk {
                    head,
                    start,
                    len,
                    v_row: self.v_starts[b] + (start - block[0]) / self.layout.word,
                });
            }
        }
    }
}

fn widen(starts: &[u32]) -> Vec<usize> {
    starts.iter().map(|&s| s as usize).collect()
}

/// Walks over the keys of a query tile, some at a time.
#[derive(Debug, Clone)]
pub(super) struct Keys<'a> {
    plan: &'a Plan<'a>,
    /// Blocks not finished yet.
    list: &'a [i32],
    /// Keys taken from the first of them.
    offset: usize,
}

/// The keys of one tile of scores, by where their rows start.
#[derive(Debug, Default)]
pub(super) struct KeyTile {
    /// Word of K at which each key starts; padded to what the register blocks cover by repeating the last.
    pub(super) k_rows: Vec<usize>,
    /// Word of V at which each row (a key or a pair) starts.
    pub(super) v_rows: Vec<usize>,
    /// Per row of V: the second key of the pair does not exist (the first is the last of an odd block).
    pub(super) single: Vec<bool>,
}

impl Keys<'_> {
    /// Fills `tile` with at most `block_n` keys; returns whether there were any.
    pub(super) fn next_tile(&mut self, block_n: usize, tile: &mut KeyTile) -> bool {
        let Layout { word, k_stride, channels, .. } = self.plan.layout;
        tile.k_rows.clear();
        tile.v_rows.clear();
        tile.single.clear();
        while let Some(&block) = self.list.first() {
            let room = block_n - tile.k_rows.len();
            if room == 0 {
                break;
            }
            let b = block as usize;
            let start = self.plan.kv_starts[b];
            let len = self.plan.kv_starts[b + 1] - start;
            let taken = (len - self.offset).min(room);
            let first = start + self.offset;
            let v_first = self.plan.v_starts[b] + self.offset / word;
            if word == 1 {
                tile.k_rows.extend((first..first + taken).map(|key| key * k_stride));
                tile.v_rows.extend((v_first..v_first + taken).map(|row| row * channels));
            } else {
                for i in (0..taken).step_by(2) {
                    let single = i + 1 == taken;
                    let key = first + i;
                    tile.k_rows.push(key * k_stride);
                    tile.k_rows.push(if single { key } else { key + 1 } * k_stride);
                    tile.v_rows.push((v_first + i / 2) * channels);
                    tile.single.push(single);
                }
            }
            self.offset += taken;
            if self.offset == len {
                self.list = &self.list[1..];
                self.offset = 0;
            }
        }
        let Some(&last) = tile.k_rows.last() else { return false };
        tile.k_rows.resize(micro::padded_rows(tile.k_rows.len()), last);
        true
    }
}
