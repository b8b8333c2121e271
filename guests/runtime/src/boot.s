# Entry from the PVH boot loader: 32-bit protected mode, paging off, ebx = hvm_start_info.
# Zeroes .bss, maps the first 4 GiB one to one, enters 64-bit mode and calls guest_boot(start info).

    .section .note.Xen, "a", @note
    .balign 4
    .long 4              # size of the name
    .long 8              # size of the descriptor: QEMU reads 8 bytes of a 64-bit ELF
    .long 18             # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_start

    .section .text.boot, "ax"
    .code32
    .global pvh_start
pvh_start:
    cli
    cld
    movl %ebx, %esi              # kept until guest_boot
    movl $__bss_start, %edi
    movl $__bss_end, %ecx
    subl %edi, %ecx
    shrl $2, %ecx
    xorl %eax, %eax
    rep stosl

    # 4 GiB in pages of 2 MiB; the first 2 MiB in pages of 4 KiB.
    movl $p3_table, %eax
    orl $3, %eax
    movl %eax, p4_table
    movl $p2_table, %eax
    orl $3, %eax
    movl $p3_table, %edi
    movl $4, %ecx
1:  movl %eax, (%edi)
    addl $4096, %eax
    addl $8, %edi
    loop 1b
    movl $p2_table, %edi
    movl $0x83, %eax
    movl $2048, %ecx
2:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 2b
    movl $p1_table, %eax
    orl $3, %eax
    movl %eax, p2_table
    movl $p1_table, %edi         # page 0 stays mapped until the start info has been read
    movl $0x3, %eax
    movl $512, %ecx
3:  movl %eax, (%edi)
    addl $0x1000, %eax
    addl $8, %edi
    loop 3b
    movl $stack_guard, %eax      # not present: a stack overflow faults
    shrl $12, %eax
    movl $0, p1_table(,%eax,8)

    movl $p4_table, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x620, %eax             # PAE | OSFXSR | OSXMMEXCPT
    movl %eax, %cr4
    movl $0xC0000080, %ecx       # EFER
    rdmsr
    orl $0x100, %eax             # LME
    wrmsr
    movl %cr0, %eax
    andl $0xfffffffb, %eax       # clear EM
    orl $0x80010022, %eax        # PG | WP | NE | MP
    movl %eax, %cr0
    lgdt gdt_pointer
    ljmp $8, $long_mode

    .code64
long_mode:
    movw $16, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    xorl %eax, %eax
    movw %ax, %fs
    movw %ax, %gs
    leaq stack_top(%rip), %rsp
    leaq tss(%rip), %rax         # the descriptor's base is split over three fields
    leaq gdt_tss(%rip), %rdx
    movw %ax, 2(%rdx)
    shrq $16, %rax
    movb %al, 4(%rdx)
    movb %ah, 7(%rdx)
    leaq ist1_top(%rip), %rax
    movq %rax, tss+36(%rip)
    leaq ist2_top(%rip), %rax
    movq %rax, tss+44(%rip)
    movw $24, %ax
    ltr %ax
    movl %esi, %edi
    xorl %ebp, %ebp              # ends a walk of the frame pointers
    call guest_boot
5:  cli
    hlt
    jmp 5b

    .section .data
    .balign 8
gdt:
    .quad 0
    .quad 0x00af9a000000ffff     # 64-bit code
    .quad 0x00cf92000000ffff     # data
gdt_tss:
    .quad 0x0000890000000067     # TSS, its base is filled in above
    .quad 0
gdt_pointer:
    .word . - gdt - 1
    .quad gdt
    .balign 16
tss: .fill 104, 1, 0

    .section .bss
    .balign 4096
p4_table: .skip 4096
p3_table: .skip 4096
p2_table: .skip 16384
    .global p1_table
p1_table: .skip 4096
    .global stack_guard
stack_guard: .skip 4096
    .global stack_bottom
stack_bottom:
    .skip 131072
    .global stack_top
stack_top:
    .skip 8192
ist1_top:                        # interrupts and most exceptions
    .skip 8192
ist2_top:                        # page and double faults: the main stack may be gone
