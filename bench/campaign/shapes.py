"""What is measured: shapes that people use, thresholds, and how much of them a machine can bear."""

from dataclasses import dataclass, replace

# Shares of pooled attention that are kept, ordered by how much they tell: those of the headline first.
THRESHOLDS = (0.7, 0.9, 0.4, 0.8, 0.5, 0.6)
# Makes masks of generated inputs as sparse as those of long videos: 96 to 49 % over the thresholds.
PEAK = 7


@dataclass(frozen=True)
class Shape:
    """Tokens of a video (frames, rows, columns), heads and head dimension of one model at one resolution."""

    name: str
    title: str
    grid: tuple
    heads: int
    head_dim: int
    dtype: str = "bf16"
    is_clip: bool = False

    @property
    def tokens(self):
        t, h, w = self.grid
        return t * h * w

    @property
    def spec(self):
        """The input as `nabla --generate` takes it."""
        sizes = ",".join(str(n) for n in (*self.grid, self.heads, self.head_dim))
        return f"video:{sizes},{self.dtype},peak={PEAK}"

    @property
    def input_options(self):
        """Options that give the program this input."""
        return ["--dtype", self.dtype] if self.is_clip else ["--generate", self.spec]

    @property
    def input_bytes(self):
        """Bytes of queries, keys and values together."""
        return 3 * self.tokens * self.heads * self.head_dim * (4 if self.dtype == "f32" else 2)

    @property
    def is_ragged(self):
        """Whether 8 x 8 patches leave a rest: FlexAttention then needs padded edge blocks."""
        return self.grid[1] % 8 != 0 or self.grid[2] % 8 != 0

    def cut(self, frames, heads):
        """The same with fewer frames and heads, for a machine that cannot bear all."""
        t, h, w = self.grid
        return replace(self, grid=(min(t, frames), h, w), heads=min(self.heads, heads))


# Part of the program; every backend can bear it.
CLIP = Shape("clip", "the bundled clip", (4, 32, 32), 2, 64, is_clip=True)

# Ordered by how much they tell.
SHAPES = (
    Shape("wan-720p", "Wan 14B 720p", (21, 45, 80), 40, 128),
    Shape("wan-480p", "Wan 14B 480p", (21, 30, 52), 40, 128),
    Shape("kandinsky-lite", "Kandinsky 5 Lite 5 s", (31, 32, 48), 28, 64),
    Shape("hunyuan-720p", "HunyuanVideo 720p", (33, 45, 80), 24, 128),
    Shape("kandinsky-pro", "Kandinsky 5 Pro 5 s", (31, 48, 80), 32, 128),
    Shape("cogvideox", "CogVideoX", (13, 30, 45), 48, 64),
)

# Small enough for seconds on any machine; the second has ragged edge blocks.
SMOKE_SHAPES = (
    Shape("small", "a small video", (2, 16, 24), 2, 64, "f32"),
    Shape("ragged", "a small ragged video", (2, 12, 20), 2, 64, "f32"),
)


def shapes_for(backend, smoke):
    """Returns the shapes that a backend can bear, the clip apart."""
    if backend == "emulator":
        return tuple(replace(shape, dtype="bf16") for shape in SMOKE_SHAPES)
    if smoke:
        return SMOKE_SHAPES
    return SHAPES if backend == "cuda" else tuple(shape.cut(frames=2, heads=1) for shape in SHAPES)


def thresholds_for(backend, smoke):
    """Returns the thresholds; few where only the way is tested."""
    return (0.5, 0.8) if smoke or backend == "emulator" else THRESHOLDS


# The policy that keeps everything, and its place among the others: after the headline's thresholds.
DENSE, DENSE_AT = "dense", 3


def policies_of(thresholds):
    """Returns the threshold of each policy, None for dense, in the order of what they tell."""
    policies = [(f"nabla-{threshold}", threshold) for threshold in thresholds]
    policies.insert(DENSE_AT, (DENSE, None))
    return dict(policies)
