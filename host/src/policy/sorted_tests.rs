//! Policies of sorted tokens, against every pair of tokens by itself.

use std::{collections::BTreeMap, path::Path};

use super::*;
use crate::{
    Grid, Problem,
    generate::{GenerateSpec, generate_video},
    io::{Element, NamedTensor, write_safetensors},
    token_order::{Arrangement, AxisOrder},
    variant::MaskBlock,
};

const GRID: Grid = Grid { t: 3, h: 5, w: 7 };
const TOKENS: usize = 105;
const BLOCK: usize = 20;
/// 105 tokens in runs of 20.
const BLOCKS: usize = 6;

struct Case {
    qkv: Qkv,
    folder: tempfile::TempDir,
}

impl Case {
    fn new(spec: &str) -> Self {
        let spec: GenerateSpec = spec.parse().unwrap();
        Self { qkv: generate_video(&spec, 3), folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Writes a map of each head's blocks, regular in no way.
    fn map(&self, name: &str, heads: usize, metadata: &[(&str, &str)]) -> Vec<u8> {
        let cells: Vec<u8> = (0..heads * BLOCKS * BLOCKS).map(|n| u8::from(n * n % 7 < 3)).collect();
        let mask = NamedTensor {
            name: "mask",
            shape: &[heads, BLOCKS, BLOCKS],
            element: Element::U8,
            bytes: &cells,
        };
        let metadata: BTreeMap<String, String> =
            metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        write_safetensors(Path::new(&self.path(name)), &[mask], &metadata).unwrap();
        cells
    }

    fn problem(&self) -> Problem {
        self.qkv.problem()
    }

    /// The order a policy asks for, and its mask.
    fn built(&self, text: &str) -> (Orders, BlockMask) {
        let policy: Policy = text.parse().unwrap_or_else(|error| panic!("{error}"));
        let arrangement = policy.arrangement(&self.problem()).unwrap_or_else(|error| panic!("{error}"));
        let orders = Orders::arranged(&self.problem(), MaskBlock::square(BLOCK), &arrangement).unwrap();
        let mask = policy.build(&self.qkv, &orders).unwrap_or_else(|error| panic!("{error}"));
        policy.check(self.problem().batch_heads(), &orders).unwrap_or_else(|error| panic!("{error}"));
        (orders, mask)
    }

    fn refused(&self, text: &str) -> String {
        let policy: Policy = text.parse().unwrap_or_else(|error| panic!("{error}"));
        policy.arrangement(&self.problem()).unwrap_err().to_string()
    }
}

/// For each token by its raster index, its place among all when they are sorted by their coordinates.
fn places(axes: &str) -> Vec<usize> {
    let key = |token: usize| -> Vec<usize> {
        let of = |axis| match axis {
            't' => token / (GRID.h * GRID.w),
            'h' => token / GRID.w % GRID.h,
            _ => token % GRID.w,
        };
        axes.chars().map(of).collect()
    };
    let mut tokens: Vec<usize> = (0..TOKENS).collect();
    tokens.sort_by_key(|&token| key(token));
    let mut places = vec![0; TOKENS];
    tokens.iter().enumerate().for_each(|(place, &token)| places[token] = place);
    places
}

/// Says for each pair of tokens, by raster index, whether a head computes it.
fn pairs(orders: &Orders, mask: &BlockMask, head: usize) -> Vec<Vec<bool>> {
    let mut pairs = vec![vec![false; TOKENS]; TOKENS];
    for i in 0..mask.q_layout().blocks() {
        for &j in mask.row(head, i) {
            for q in mask.q_layout().range(i) {
                for k in mask.kv_layout().range(j as usize) {
                    pairs[orders.q.source(head)[q] as usize][orders.kv.source(head)[k] as usize] = true;
                }
            }
        }
    }
    pairs
}

#[test]
fn every_pair_of_tokens_is_kept_that_the_published_blocks_keep() {
    let case = Case::new("video:3,5,7,4,8");
    let cells = case.map("map.safetensors", 4, &[]);
    let kept = |head: usize, i: usize, j: usize| cells[(head * BLOCKS + i) * BLOCKS + j] == 1;
    let compare = |text: &str, axes: [&str; 4]| {
        let (orders, mask) = case.built(text);
        assert_eq!(mask.to_bytes(), cells, "{text}");
        for (head, axes) in axes.into_iter().enumerate() {
            let places = places(axes);
            let got = pairs(&orders, &mask, head);
            for (q, row) in got.iter().enumerate() {
                for (k, &got) in row.iter().enumerate() {
                    let expected = kept(head, places[q] / BLOCK, places[k] / BLOCK);
                    assert_eq!(got, expected, "{text}, head {head}, tokens {q} and {k}");
                }
            }
        }
        orders
    };
    for axes in AxisOrder::ALL.map(AxisOrder::name) {
        let orders = compare(&format!("paro-{axes}:{}", case.path("map.safetensors")), [axes; 4]);
        assert_eq!(orders.q.tables().count(), 1, "one table serves all heads");
    }
    let of = |axes: &str| format!("\"paro-{axes}:{}\"", case.path("map.safetensors"));
    let list = format!("[{}, {}, {}, {}]", of("hwt"), of("wth"), of("thw"), of("hwt"));
    std::fs::write(case.path("heads.json"), list).unwrap();
    let orders = compare(&format!("heads:{}", case.path("heads.json")), ["hwt", "wth", "thw", "hwt"]);
    assert_eq!(orders.q.tables().count(), 4);
}

#[test]
fn heads_that_keep_all_or_nothing_go_with_sorted_ones() {
    let case = Case::new("video:3,5,7,3,8");
    let cells = case.map("map.safetensors", 3, &[]);
    let list = format!(r#"["dense", "paro-hwt:{}", "vdit-skip"]"#, case.path("map.safetensors"));
    std::fs::write(case.path("heads.json"), list).unwrap();
    let (_, mask) = case.built(&format!("heads:{}", case.path("heads.json")));
    let (of_head, bytes) = (BLOCKS * BLOCKS, mask.to_bytes());
    assert!(bytes[..of_head].iter().all(|&kept| kept == 1));
    assert_eq!(bytes[of_head..2 * of_head], cells[of_head..2 * of_head]);
    assert!(bytes[2 * of_head..].iter().all(|&kept| kept == 0));
}

#[test]
fn rules_of_one_order_join_and_others_say_why_not() {
    let case = Case::new("video:3,5,7,2,8");
    let path = case.path("map.safetensors");
    case.map("map.safetensors", 2, &[]);
    let (_, all) = case.built(&format!("vdit-full_paro-hwt:{path}"));
    assert_eq!(all.density(), 1.0);
    let (_, none) = case.built(&format!("vdit-skip@paro-hwt:{path}"));
    assert_eq!(none.density(), 0.0);
    for rule in ["nabla-0.5", "sta-3-3-3", "vsa-0.2", "radial", "vdit-diagonal-2"] {
        for join in ["_", "@"] {
            let message = case.refused(&format!("{rule}{join}paro-hwt:{path}"));
            let words = ["same blocks", "patches of one frame", "runs of tokens sorted by hwt"];
            assert!(words.iter().all(|words| message.contains(words)), "{message}");
        }
    }
    std::fs::write(case.path("heads.json"), format!(r#"["paro-hwt:{path}", "nabla-0.5"]"#)).unwrap();
    let message = case.refused(&format!("heads:{}", case.path("heads.json")));
    for words in ["end at the same places", "sorted by hwt in head 0", "patches of one frame in head 1"] {
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn tokens_in_another_order_are_refused() {
    let case = Case::new("video:3,8,8,2,8");
    let problem = case.problem();
    let block = MaskBlock::square(32);
    case.map("map.safetensors", 2, &[]);
    let paro: Policy = format!("paro-hwt:{}", case.path("map.safetensors")).parse().unwrap();
    let patches = Orders::new(&problem, block).unwrap();
    // As many blocks as there are patches: the sizes would not tell.
    let sorted = |axes| Orders::arranged(&problem, block, &Arrangement::sorted(vec![axes])).unwrap();
    assert_eq!((patches.q.layout().blocks(), sorted(AxisOrder::Hwt).q.layout().blocks()), (BLOCKS, BLOCKS));
    assert!(paro.build(&case.qkv, &sorted(AxisOrder::Hwt)).is_ok());
    for other in [&patches, &sorted(AxisOrder::Wht)] {
        let message = paro.build(&case.qkv, other).unwrap_err().to_string();
        assert!(message.contains("needs blocks that are runs of tokens sorted by hwt"), "{message}");
        assert!(paro.check(2, other).is_err());
    }
    for text in ["nabla-0.5", "sta-3-3-3", "vsa-0.2", "svg-spatial-1", "vdit-diagonal-1", "iwin-2"] {
        let policy: Policy = text.parse().unwrap();
        let other = sorted(AxisOrder::Hwt);
        let message = policy.build(&case.qkv, &other).unwrap_err().to_string();
        assert!(message.contains("needs blocks that are patches") && message.contains("hwt"), "{message}");
        assert!(policy.check(2, &other).is_err() && policy.static_bitmap(&other).is_err(), "{text}");
    }
    let mut plain = case.qkv.clone();
    plain.grid = None;
    let message = paro.arrangement(&plain.problem()).unwrap_err().to_string();
    assert!(message.contains("token grid") && message.contains("--grid"), "{message}");
}

#[test]
fn a_mask_file_says_what_its_tokens_are_sorted_by() {
    let case = Case::new("video:3,5,7,2,8");
    let cells = case.map("sorted.safetensors", 2, &[(SORTED_BY, "hwt,wht"), (ORDER, "by words")]);
    let (orders, mask) = case.built(&format!("lists:{}", case.path("sorted.safetensors")));
    assert_eq!(mask.to_bytes(), cells);
    assert_eq!(
        *orders.q.arrangement(),
        Arrangement::sorted(vec![AxisOrder::Hwt, AxisOrder::Wht]),
        "lists of sorted tokens bring their order"
    );
    // Two policies are the same only where their tokens are.
    case.map("other.safetensors", 2, &[(SORTED_BY, "wht")]);
    case.map("patches.safetensors", 2, &[(ORDER, "blocks by frame, patch row, patch column")]);
    let hash =
        |text: String| text.parse::<Policy>().unwrap().to_string().rsplit_once('#').unwrap().1.to_owned();
    let lists = |name: &str| hash(format!("lists:{}", case.path(name)));
    let hashes = ["sorted.safetensors", "other.safetensors", "patches.safetensors"].map(lists);
    assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2] && hashes[0] != hashes[2], "{hashes:?}");

    let refused = |text: String| text.parse::<Policy>().unwrap_err().to_string();
    assert!(format!("paro-wht:{}", case.path("other.safetensors")).parse::<Policy>().is_ok());
    let message = refused(format!("paro-hwt:{}", case.path("other.safetensors")));
    assert!(message.contains("sorted by hwt") && message.contains("wht"), "{message}");
    let message = refused(format!("paro-hwt:{}", case.path("patches.safetensors")));
    assert!(message.contains("sorted by hwt") && message.contains("patch row"), "{message}");
    case.map("three.safetensors", 2, &[(SORTED_BY, "hwt,wht,thw")]);
    let message = refused(format!("lists:{}", case.path("three.safetensors")));
    assert!(message.contains("each of 2") && message.contains("got '3"), "{message}");
    case.map("odd.safetensors", 2, &[(SORTED_BY, "hwt,tow")]);
    let message = refused(format!("lists:{}", case.path("odd.safetensors")));
    assert!(message.contains(SORTED_BY) && message.contains("tow"), "{message}");
}
