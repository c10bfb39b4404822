use super::*;

fn space(text: &str) -> Space {
    file::parse(text, "test.toml")
        .and_then(|spec| spec.enumerate(&Limits::new()))
        .unwrap_or_else(|e| panic!("{e}"))
}

fn error(text: &str) -> String {
    match file::parse(text, "test.toml").and_then(|spec| spec.enumerate(&Limits::new())) {
        Ok(space) => panic!("expected an error, got {} points", space.len()),
        Err(error) => error.to_string(),
    }
}

const TILES: &str = r#"
name = "tiles"
[axes]
m = [32, 64, 128]
n = [16, 32, 64, 128]
order = ["row", "column"]
[defaults]
m = 64
n = 32
order = "column"
[limits]
bytes = 4096
[[constraints]]
when = "m * n <= limit.bytes"
reason = "does not fit"
[[constraints]]
when = "order == 'row' or m >= 64"
reason = "columns need rows"
"#;

#[test]
fn a_file_gives_axes_in_its_order_and_every_feasible_point_once() {
    let space = space(TILES);
    let names: Vec<&str> = space.axes().iter().map(|axis| axis.name.as_str()).collect();
    assert_eq!(names, ["m", "n", "order"]);
    let all: Vec<String> = space.ids().map(|id| space.describe(id)).collect();
    assert_eq!(
        all,
        [
            "m=32 n=16 order=row",
            "m=32 n=32 order=row",
            "m=32 n=64 order=row",
            "m=32 n=128 order=row",
            "m=64 n=16 order=row",
            "m=64 n=16 order=column",
            "m=64 n=32 order=row",
            "m=64 n=32 order=column",
            "m=64 n=64 order=row",
            "m=64 n=64 order=column",
            "m=128 n=16 order=row",
            "m=128 n=16 order=column",
            "m=128 n=32 order=row",
            "m=128 n=32 order=column",
        ]
    );
    assert_eq!(space.default_point().map(|id| space.describe(id)).as_deref(), Some("m=64 n=32 order=column"));
}

#[test]
fn pruned_and_feasible_points_make_the_product() {
    let space = space(TILES);
    assert_eq!(space.product(), 24);
    let pruned: Vec<(&str, u64)> = space.pruned().iter().map(|p| (p.reason.as_str(), p.points)).collect();
    // 64x128, 128x64, 128x128 do not fit, each in two orders; columns of 32 are the four n.
    assert_eq!(pruned, [("does not fit", 6), ("columns need rows", 4)]);
    assert_eq!(space.len() as u64 + 10, space.product());
}

#[test]
fn limits_of_the_device_count_before_those_of_the_file() {
    let spec = file::parse(TILES, "test.toml").unwrap_or_else(|e| panic!("{e}"));
    let limits = Limits::from([("bytes".to_owned(), 512.0)]);
    let space = spec.enumerate(&limits).unwrap_or_else(|e| panic!("{e}"));
    let all: Vec<String> = space.ids().map(|id| space.describe(id)).collect();
    assert_eq!(all, ["m=32 n=16 order=row"]);
    assert_eq!(space.default_point(), None, "the default does not fit such a device");
}

#[test]
fn points_are_found_by_their_values() {
    let space = space(TILES);
    for id in space.ids() {
        assert_eq!(space.find(space.values(id)), Some(id));
        assert_eq!(space.locate(space.coordinates(id)), Some(id));
    }
    assert_eq!(space.find([("m", &Value::Int(64)), ("n", &Value::Int(32))]), None, "an axis is missing");
}

#[test]
fn neighbours_differ_on_one_axis() {
    let space = space(TILES);
    let mut found = Vec::new();
    for id in space.ids() {
        space.neighbours(id, Neighbourhood::Hamming, &mut found);
        let differing = |other: PointId| {
            space.coordinates(id).iter().zip(space.coordinates(other)).filter(|(a, b)| a != b).count()
        };
        let expected: Vec<PointId> = space.ids().filter(|&other| differing(other) == 1).collect();
        let mut sorted = found.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected, "{}", space.describe(id));
    }
}

#[test]
fn adjacent_neighbours_skip_what_is_not_feasible() {
    let space = space(
        "[axes]\na = [8, 1, 2, 4]\nb = ['x', 'y', 'z']\n[[constraints]]\nwhen = 'a != 2'\nreason = 'r'",
    );
    let at = |a: i64, b: &str| space.find([("a", &Value::Int(a)), ("b", &Value::from(b))]);
    let mut found = Vec::new();
    space.neighbours(at(4, "x").unwrap_or_else(|| panic!("no point")), Neighbourhood::Adjacent, &mut found);
    let found: Vec<Option<PointId>> = found.into_iter().map(Some).collect();
    assert_eq!(found, [at(1, "x"), at(8, "x"), at(4, "y"), at(4, "z")]);
}

#[test]
fn a_bad_file_gets_one_error_with_its_place() {
    let cases = [
        ("", "test.toml:1:1: expected a table [axes] with a list of values for each axis, got none"),
        ("[axes]\n", "test.toml:1:1: expected at least one axis under [axes], got none"),
        ("[axes]\na = 3", "test.toml:2:5: expected the list of values of 'a', got a number"),
        ("[axes]\na = []", "test.toml:2:5: expected at least one value of 'a', got none"),
        ("[axes]\na = [1, 2, 1.0]", "test.toml:2:12: expected each value once, got 1 again"),
        ("[axes]\na = [[1]]", "test.toml:2:6: expected a number, a text, true or false, got a list"),
        ("[axes]\na = [inf]", "test.toml:2:6: expected a finite number, got inf"),
        (
            "[axes]\nmin = [1]",
            "test.toml:2:1: expected a name of letters, digits and _ that is no word of constraints, got 'min'",
        ),
        (
            "axis = 1\n[axes]\na = [1]",
            "test.toml:1:1: expected one of name, axes, defaults, limits, constraints, got 'axis'",
        ),
        ("[axes]\na = [1]\n[defaults]\nb = 1", "test.toml:4:1: expected an axis (a), got 'b'"),
        ("[axes]\na = [1]\n[defaults]\na = 2", "test.toml:4:5: expected a value of 'a' (1), got 2"),
        ("[axes]\na = [1]\n[limits]\nl = 'x'", "test.toml:4:5: expected a number, got a text"),
        (
            "[axes]\na = [1]\n[[constraints]]\nwhen = 'a == 1'",
            "test.toml:3:1: expected `reason` in this constraint, got none",
        ),
        (
            "[axes]\na = [1]\n[[constraints]]\nwhen = 'a <= bb'\nreason = ''",
            "test.toml:4:14: expected an axis (a) or limit.NAME, got 'bb'",
        ),
        (
            "[axes]\na = [1]\n[[constraints]]\nwhen = \"\"\"a <=\nbb\"\"\"\nreason = ''",
            "test.toml:4:8: expected an axis (a) or limit.NAME, got 'bb'",
        ),
        (
            "[axes]\na = [1]\n[[constraints]]\nwhen = 'a < limit.x'\nreason = ''",
            "test.toml:4:13: the limit 'x' has no value (known: none); give it under [limits] or with --limit",
        ),
        (
            "[axes]\na = [1, 0]\n[[constraints]]\nwhen = '8 // a > 1'\nreason = ''",
            "test.toml:4:14: expected a divisor other than 0 (at a=0)",
        ),
        (
            "[axes]\na = [1, 2]\n[[constraints]]\nwhen = 'a > 2'\nreason = 'small'",
            "the space 'test.toml' has no feasible point: small (2 points)",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(error(text), expected, "{text}");
    }
    let unfinished = error("[axes]\na = [1\n");
    assert!(unfinished.starts_with("test.toml:2:") && !unfinished.contains('\n'), "{unfinished}");
}

#[test]
fn a_space_too_large_to_number_is_refused_soon() {
    let axes: Vec<String> = (0..12).map(|n| format!("a{n} = [1,2,3,4,5,6,7,8,9,10]")).collect();
    let message = error(&format!("[axes]\n{}", axes.join("\n")));
    assert!(message.contains("more than 2000000 feasible points"), "{message}");
    let axes: Vec<String> = (0..30).map(|n| format!("a{n} = [1,2,3,4,5,6,7,8,9,10]")).collect();
    let message = error(&format!("[axes]\n{}", axes.join("\n")));
    assert!(message.contains("points in all"), "{message}");
}

#[test]
fn a_space_of_a_hundred_thousand_points_is_listed_with_its_neighbours_in_a_moment() {
    let axes: Vec<Axis> = (0..5).map(|n| Axis::new(&format!("a{n}"), 0..10i64)).collect();
    let spec = SpaceSpec { name: "large".into(), axes, ..SpaceSpec::default() };
    let space = spec.enumerate(&Limits::new()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(space.len(), 100_000);
    let mut found = Vec::new();
    let mut all = 0;
    for id in space.ids() {
        space.neighbours(id, Neighbourhood::Hamming, &mut found);
        all += found.len();
    }
    assert_eq!(all, 100_000 * 45);
}

#[test]
fn rows_of_measurements_make_a_space_of_what_occurs() {
    let names = ["a".to_owned(), "b".to_owned()];
    let row = |a: i64, b: &str| vec![Value::Int(a), Value::from(b)];
    let rows = [row(8, "x"), row(2, "y"), row(2, "x"), row(8, "x")];
    let (space, points) = Space::from_rows("rows", &names, &rows).unwrap_or_else(|| panic!("no space"));
    assert_eq!((space.len(), space.product()), (3, 4));
    assert_eq!(
        points.iter().map(|p| space.describe(*p)).collect::<Vec<_>>(),
        ["a=8 b=x", "a=2 b=y", "a=2 b=x", "a=8 b=x"]
    );
    assert!(Space::from_rows("rows", &names, &[]).is_none());
    assert!(Space::from_rows("rows", &names, &[vec![Value::Int(1)]]).is_none());
}
