"""PyTorch's ways to do the same: FlexAttention with our mask, scaled_dot_product_attention over everything, and NABLA's mask
as PyTorch ports build it. On a GPU or, to test the way, on the CPU."""

import functools

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from torch_side import BLOCK, SETTLE_S, difference, elapsed_us, kept_of, nabla_mask, read_safetensors

# Kernel options of FlexAttention that are tried; a tile may not be larger than a mask block.
FLEX_OPTIONS = tuple(
    {"BLOCK_M": m, "BLOCK_N": 64, "num_warps": warps, "num_stages": stages}
    for m, warps, stages in ((64, 4, 2), (64, 4, 3), (64, 4, 4), (64, 8, 3), (32, 4, 3))
)
# The least change of the default ones that fits a mask block.
SMALL_TILES = {"BLOCK_M": BLOCK, "BLOCK_N": BLOCK}
# Launches of an option before its time counts, and those that count.
WARM, COUNTED = 2, 3
# Share of the blocks that single precision sums may decide otherwise.
MASK_ROUNDING = 1e-3


class NotThere(Exception):
    """A peer that this machine or build of PyTorch has not."""


class Peers:
    """All peers of one shape, on the same inputs as ours."""

    def __init__(self, pack, path):
        self.cuda = pack.backend == "cuda"
        if self.cuda and not torch.cuda.is_available():
            raise SystemExit("error: torch sees no GPU")
        self.device = torch.device("cuda" if self.cuda else "cpu")
        torch._dynamo.config.cache_size_limit = 64
        self.settle_s = 0 if self.cuda else SETTLE_S
        self.convention = "cold L2, CUDA events" if self.cuda else "wall clock, warm caches"
        tensors, _ = read_safetensors(path)
        self.raster = [tensors[name].to(self.device) for name in "qkv"]
        self.dtype = self.raster[0].dtype
        self.mask = None
        self._padded = None
        self._compiled = {}
        self._options = None
        if self.cuda:
            size = 2 * torch.cuda.get_device_properties(0).L2_cache_size
            self._flush = torch.empty(size, dtype=torch.uint8, device=self.device)

    def take(self, path, threshold):
        """Takes over mask, order and results of ours. `threshold` of None is dense attention."""
        tensors, _ = read_safetensors(path)
        on_device = {name: tensor.clone().to(self.device) for name, tensor in tensors.items()}
        if on_device["q_order"].dim() != 1:
            raise ValueError("expected one order of tokens for all heads, got one for each: peers have no such mask")
        self.threshold = threshold
        self.out = on_device["out"]
        self.order = on_device["q_order"].long()
        starts = on_device["kv_starts"].long()
        self.sizes = starts.diff()
        self.is_padded = bool((self.sizes < BLOCK).any())
        # Where each token of the order stands once edge blocks are filled up.
        block = torch.repeat_interleave(torch.arange(len(self.sizes), device=self.device), self.sizes)
        self.slots = block * BLOCK + torch.arange(len(block), device=self.device) - starts[block]
        self.mask = (on_device["kv_num_blocks"], on_device["kv_indices"]) if threshold is not None else None
        if self._padded is None:
            self._padded = [self._in_blocks(x) for x in self.raster]

    def _in_blocks(self, x):
        padded = x.new_zeros(*x.shape[:2], len(self.sizes) * BLOCK, x.shape[3])
        padded[:, :, self.slots] = x[:, :, self.order]
        return padded

    @property
    def is_untuned(self):
        """Whether options of FlexAttention are still to be tried, which takes a while."""
        return self.cuda and self._options is None

    @property
    def in_blocks(self):
        return self._padded

    def all(self):
        """Lists what ours is compared with on the problem taken."""
        sdpa = [
            Sdpa(self, "SDPA flash", SDPBackend.FLASH_ATTENTION),
            Sdpa(self, "SDPA cuDNN", SDPBackend.CUDNN_ATTENTION),
        ]
        return sdpa if self.mask is None else [Flex(self, False), Flex(self, True), Mask(self), *sdpa]

    def time_us(self, work):
        """Times once, by the convention that ours are timed by."""
        with torch.no_grad():
            if not self.cuda:
                return elapsed_us(work)
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._flush.zero_()
            start.record()
            work()
            end.record()
            end.synchronize()
            return start.elapsed_time(end) * 1e3

    def do_bench(self, peer):
        """Times a peer by Triton's own convention; None where there is no GPU."""
        if not self.cuda:
            return None
        from triton.testing import do_bench

        with torch.no_grad():
            return do_bench(peer.work, warmup=25, rep=100, return_mode="median") * 1e3

    def agree(self, theirs):
        """Compares the heads of ours with [1, H, S, D] in the order of our blocks."""
        error, limit = difference(self.out, theirs[0, : self.out.shape[0]], self.dtype)
        if not error <= limit:
            raise ValueError(f"outputs differ by {error:.1e} relative, at most {limit:.0e} expected")
        return f"outputs agree to {error:.0e}"

    def flex(self, options):
        """Returns FlexAttention compiled with kernel options; the first call of each compiles."""
        key = tuple(sorted((options or {}).items()))
        if key not in self._compiled:
            self._compiled[key] = torch.compile(
                functools.partial(flex_attention, kernel_options=options or None), dynamic=False
            )
        return self._compiled[key]

    def flex_options(self, block_mask):
        """Returns the fastest kernel options, chosen once a shape."""
        if self._options is None:
            times = {}
            for index, options in enumerate(FLEX_OPTIONS):
                run = functools.partial(self.flex(options), *self.in_blocks, block_mask=block_mask)
                try:
                    samples = [self.time_us(run) for _ in range(WARM + COUNTED)][WARM:]
                except Exception:  # an option that this GPU has no room for is no candidate
                    continue
                times[index] = sorted(samples)[len(samples) // 2]
            if not times:
                raise NotThere("no kernel options of FlexAttention work here")
            self._options = FLEX_OPTIONS[min(times, key=times.get)]
        return self._options


class Peer:
    """One way of PyTorch's; `part` says which of ours it is compared with."""

    part = "attention"
    is_padded = False
    # Whether its options are tried first.
    is_tuned = False

    def __init__(self, peers):
        self.peers = peers
        self.work = None

    def run(self):
        return self.peers.time_us(self.work)


class Flex(Peer):
    """FlexAttention, compiled, over the blocks of our mask."""

    what = "attention on the same mask"

    def __init__(self, peers, tuned):
        super().__init__(peers)
        self.is_tuned = tuned
        self.is_padded = peers.is_padded
        self.name = "FlexAttention, tuned options" if tuned else "FlexAttention"

    def prepare(self):
        peers = self.peers
        if self.is_tuned and not peers.cuda:
            raise NotThere("kernel options are those of GPU kernels")
        mask = self.block_mask()
        if self.is_tuned:
            return self._with(peers.flex_options(mask), mask)
        try:
            return self._with(None, mask)
        except Exception as error:
            # Some releases take default tiles that mask blocks of 64 tokens do not hold, and refuse to compile.
            if not peers.cuda or "divisible" not in str(error):
                raise
            return self._with(SMALL_TILES, mask) + ", the default tiles do not fit the blocks"

    def _with(self, options, mask):
        """Runs once with kernel options and compares the results."""
        peers = self.peers
        self.work = functools.partial(peers.flex(options), *peers.in_blocks, block_mask=mask)
        with torch.no_grad():
            note = peers.agree(self.work()[:, :, peers.slots])
        return note + (f", {options}" if options else "")

    def block_mask(self):
        """Makes FlexAttention's mask; blocks that are padded need a rule that leaves the padding out."""
        peers = self.peers
        kept = kept_of(*peers.mask, len(peers.sizes))
        ragged = peers.sizes < BLOCK
        whole, part = lists_of(kept & ~ragged), lists_of(kept & ragged)
        if not peers.is_padded and not peers.cuda:
            # Given as full blocks, the C++ that some releases of torch generate for a CPU does not compile.
            return BlockMask.from_kv_blocks(*whole, BLOCK_SIZE=BLOCK, mask_mod=None)
        if not peers.cuda:
            part, whole = lists_of(kept), (None, None)
        sizes = peers.sizes

        def inside(b, h, i, j):
            return j % BLOCK < sizes[j // BLOCK]

        return BlockMask.from_kv_blocks(*part, *whole, BLOCK_SIZE=BLOCK, mask_mod=inside if peers.is_padded else None)


def lists_of(kept):
    """Turns booleans [B, H, Q, K] into counts and ascending lists of the full width, so that nothing is compiled twice."""
    order = torch.argsort(kept.int(), dim=-1, descending=True, stable=True)
    return kept.sum(-1).int(), order.int()


class Sdpa(Peer):
    """Attention over everything by one of PyTorch's own kernels."""

    def __init__(self, peers, name, backend):
        super().__init__(peers)
        self.name = name
        self.backend = backend
        self.what = "dense attention" if peers.mask is None else "ours on the mask, theirs dense"

    def prepare(self):
        peers = self.peers
        if self.backend == SDPBackend.CUDNN_ATTENTION and not peers.cuda:
            raise NotThere("cuDNN is for GPUs")

        def work():
            with sdpa_kernel([self.backend]):
                return torch.nn.functional.scaled_dot_product_attention(*peers.raster)

        self.work = work
        with torch.no_grad():
            theirs = work()[:, :, peers.order]
        return peers.agree(theirs) if peers.mask is None else "its outputs are compared in the dense row"


class Mask(Peer):
    """NABLA's mask: mean, matmul, softmax, sort, cumsum, gather, argsort. Tokens are in block order already."""

    name = "PyTorch: mean, matmul, softmax, sort, ..."
    what = "building the mask"
    part = "mask"

    def __init__(self, peers):
        super().__init__(peers)
        self.is_padded = peers.is_padded

    def prepare(self):
        peers = self.peers
        q, k, _ = peers.in_blocks
        sizes = peers.sizes if peers.is_padded else None
        theirs = kept_of(*nabla_mask(q.float(), k.float(), peers.threshold, sizes), len(peers.sizes))
        ours = kept_of(*peers.mask, len(peers.sizes))
        differing, all_blocks = (ours != theirs).sum().item(), ours.sum().item()
        if differing > MASK_ROUNDING * all_blocks:
            raise ValueError(f"masks differ in {differing} of {all_blocks} blocks")
        self.work = lambda: nabla_mask(q, k, peers.threshold, sizes)
        return f"{differing} of {all_blocks} blocks differ"
