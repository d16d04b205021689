"""Kernels and their bytes, from the text of a compiled GPU program."""

import pytest

from benchmarks.hlo import kernels

PROGRAM = """HloModule jit_f, is_scheduled=true

%sums (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(%a, %b)
}

%fused (p0: bf16[8,10], p1: f32[10]) -> (f32[8], bf16[2,10]) {
  %p0 = bf16[8,10]{1,0} parameter(0)
  %part = bf16[2,10]{1,0} slice(%p0), slice={[0:8:4], [0:10]}
  %p1 = f32[10]{0} parameter(1)
  %wide = f32[8,10]{1,0} broadcast(%p1), dimensions={1}
  %zero = f32[] constant(0)
  %total = f32[8]{0} reduce(%wide, %zero), dimensions={1}, to_apply=%sums
  ROOT %both = (f32[8]{0}, bf16[2,10]{1,0}) tuple(%total, %part)
}

%cut (p: f32[100]) -> f32[4] {
  %p = f32[100]{0} parameter(0)
  ROOT %piece = f32[4]{0} slice(%p), slice={[96:100]}
}

ENTRY %main (x: bf16[8,10], y: f32[100]) -> (bf16[2,10], f32[4]) {
  %x = bf16[8,10]{1,0} parameter(0)
  %y = f32[100]{0} parameter(1)
  %cut_fusion = f32[4]{0} fusion(%y), kind=kLoop, calls=%cut
  %z = f32[10]{0} bitcast(%y)
  %two = (f32[8]{0}, bf16[2,10]{1,0}, /*index=2*/u8[0]{0}) fusion(%x, %z), kind=kInput, calls=%fused, metadata={op_name="jit(f)/sum"}
  %one = bf16[2,10]{1,0} get-tuple-element(%two), index=1
  %conv = (bf16[2,10]{1,0}, u8[64]{0}) custom-call(%one, %x), custom_call_target="__cudnn$convForward"
  %made = bf16[2,10]{1,0} get-tuple-element(%conv), index=0
  ROOT %out = (bf16[2,10]{1,0}, f32[4]{0}) tuple(%made, %cut_fusion)
}
"""  # noqa: E501


def test_a_kernel_moves_what_it_writes_and_what_that_is_made_of():
    cut, two, conv = kernels(PROGRAM)
    assert (cut.name, cut.moved) == ("cut_fusion", 4 * 4 + 4 * 4)
    # A quarter of x, all of y's ten numbers once, and the results.
    assert two.moved == 2 * 20 + 4 * 10 + 4 * 8 + 2 * 20
    assert [str(array) for array in two.made] == ["f32[8]", "bf16[2,10]", "u8[0]"]
    assert two.source == "jit(f)/sum"
    # Operands whole, and the workspace.
    assert conv.moved == 2 * 20 + 2 * 80 + 2 * 20 + 64


def test_kernels_in_a_loop_are_not_silently_left_out():
    looped = PROGRAM.replace("fusion(%y), kind=kLoop, calls=%cut", "while(%y), body=%cut")
    with pytest.raises(ValueError, match="kernels inside while %cut_fusion are not counted"):
        kernels(looped)


def test_a_text_without_entry_is_refused():
    with pytest.raises(ValueError, match="no entry computation"):
        kernels("module @jit_f {}")
