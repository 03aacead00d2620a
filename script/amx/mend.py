"""Puts right what keeps Bochs 3.0 from running AMX under Linux: mend.py FOLDER, where FOLDER is its `cpu`."""

import pathlib
import re
import sys

TILE_DATA = "BX_XCR0_XTILEDATA_MASK"


def change(path, old, new):
    """Replaces the first match of a pattern; another version of Bochs, where there is none, is a fault."""
    text = path.read_text()
    changed, count = re.subn(old, new, text, count=1, flags=re.S)
    if count != 1:
        sys.exit(f"error: {path} is not as in Bochs 3.0: `{old}` is not there")
    path.write_text(changed)


def signed_bytes(path):
    """Bytes are kept as unsigned ones, so a cast to 32 bits does not give them a sign."""
    text = path.read_text()
    for name, operands in (("DPBDSS", "xy"), ("DPBDSU", "x"), ("DPBDUS", "y")):
        start = text.index(f"Bit32u {name}(")
        end = text.index("\n}", start)
        body = re.sub(r"Bit32[su]\((\wbyte\[\d\])\)", r"Bit32s(\1)", text[start:end])
        body = re.sub(rf"Bit32s\(([{operands}]byte\[\d\])\)", r"Bit32s(Bit8s(\1))", body)
        text = text[:start] + body + text[end:]
    path.write_text(text)


def main(folder):
    cpu = pathlib.Path(folder)
    signed_bytes(cpu / "avx" / "amx.cc")
    # vcvtne2ps2bf16: the upper half of the result came from beyond the end of its source.
    change(cpu / "avx" / "avx512_bf16.cc", r"(to_bfloat16\(op1\.vmm32u\(n)\)", r"\1 - DWORD_ELEMENTS(len))")
    # vdpbf16ps: a short displacement counts vectors, as wherever a whole vector is read, and not elements.
    change(cpu / "decoder" / "ia_opcodes_evex.def", r"(VDPBF16PS_MASK_VpsHdqWdqR, [^)]*OP_mVdq)32", r"\1")
    # Saved shapes: 16-bit fields are bytes of a row, 8-bit ones rows.
    change(cpu / "xsave.cc", r"(vmm16u\(8\+n\)\s*= [^;]*\.)rows;", r"\1bytes_per_row;")
    change(cpu / "xsave.cc", r"(vmmubyte\(48\+n\)\s*= [^;]*\.)bytes_per_row;", r"\1rows;")
    # Eight rows of a tile's sixteen were saved and restored: the number of tiles was taken for that of rows.
    for method in ("xsave", "xrstor"):
        change(cpu / "xsave.cc", rf"(::{method}_tiledata_state\(.*?row < )BX_TILE_REGISTERS", r"\1BX_TILE_MAX_ROWS")
    # Data that is in use was told to be in its initial state, and so was never saved.
    change(cpu / "xsave.cc", r"tile_use_tracker == 0\)", "tile_use_tracker != 0)")
    # IA32_XFD: a feature is switched off until its first use, of which Linux hears by #NM and IA32_XFD_ERR.
    change(cpu / "cpuid.cc", r"(leaf->eax \|= \(1<<3\);)", r"\1\n    if (is_cpu_extension_supported(BX_ISA_AMX))\n      leaf->eax |= (1<<4);")
    change(
        cpu / "cpuid.cc", r"(leaf->ecx = \(cpu->ia32_xss_suppmask & [^;]*;)",
        r"\1\n      if (subfunction == xcr0_t::BX_XCR0_XTILEDATA_BIT)\n        leaf->ecx |= (1<<2);",
    )
    change(cpu / "msr.h", r"(BX_MSR_XSS = 0xDA0,)", r"\1\n  BX_MSR_XFD = 0x1C4,\n  BX_MSR_XFD_ERR = 0x1C5,")
    change(cpu / "cpu.h", r"(Bit64u ia32_xss;)", r"\1\n  Bit64u ia32_xfd;\n  Bit64u ia32_xfd_err;")
    change(cpu / "init.cc", r"((BX_CPU_THIS_PTR msr\.)ia32_xss = 0;)", r"\1\n  \2ia32_xfd = 0;\n  \2ia32_xfd_err = 0;")
    names = (("XFD", "xfd"), ("XFD_ERR", "xfd_err"))
    known = "".join(f'msr_desc[BX_MSR_{m}] = new MSR_Descriptor("MSR_IA32_{m}", BX_ISA_XSAVES);\n  ' for m, _ in names)
    change(cpu / "msr.cc", r"(msr_desc\[BX_MSR_XSS\] =)", lambda found: known + found[1])
    read = "".join(f"case BX_MSR_{m}:\n      val64 = BX_CPU_THIS_PTR msr.ia32_{f};\n      break;\n    " for m, f in names)
    change(cpu / "msr.cc", r"(case BX_MSR_XSS:\s*if )", lambda found: read + found[1])
    write = "".join(
        f"case BX_MSR_{m}:\n      BX_CPU_THIS_PTR msr.ia32_{f} = val_64;\n      handleAvxModeChange();\n      break;\n    "
        for m, f in names
    )
    change(cpu / "msr.cc", r"(case BX_MSR_XSS:\s*\{)", lambda found: write + found[1])
    off = f"(BX_CPU_THIS_PTR msr.ia32_xfd & {TILE_DATA})"
    change(cpu / "proc_ctrl.cc", rf"(\| {TILE_DATA}\)\) != 0)\)(\s*clear_amx_ok)", rf"\1 || {off} != 0)\2")
    fault = f"if {off} {{\n    BX_CPU_THIS_PTR msr.ia32_xfd_err |= {TILE_DATA};\n    exception(BX_NM_EXCEPTION, 0);\n  }}\n\n  "
    change(cpu / "proc_ctrl.cc", r"(BxNoAMX.*?)(BX_ASSERT\(0\);)", lambda found: found[1] + fault + found[2])


main(*sys.argv[1:])
