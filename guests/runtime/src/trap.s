# Interrupt and exception entries. Interrupts are taken only inside `sti; hlt; cli`, on a stack of their
# own, so the red zone of compiled code is safe. A handler notes the cause and returns with interrupts off.

    .section .text.trap, "ax"
    .macro IRQ name bit
    .global irq_\name
irq_\name:
    orl $\bit, IRQ_PENDING(%rip)
    pushq %rax
    movl $0xfee000b0, %eax
    movl $0, (%rax)              # end of interrupt
    popq %rax
    andq $~0x200, 16(%rsp)       # IF off in the saved flags
    iretq
    .endm
    IRQ timer 1
    IRQ virtio 2
    IRQ power 4
    .global irq_spurious
irq_spurious:
    iretq

    # Exceptions are fatal: report and leave.
    .macro EXC vector has_error
exc_\vector:
    .if \has_error == 0
    pushq $0
    .endif
    pushq $\vector
    jmp exc_common
    .endm
    EXC 0 0
    EXC 1 0
    EXC 2 0
    EXC 3 0
    EXC 4 0
    EXC 5 0
    EXC 6 0
    EXC 7 0
    EXC 8 1
    EXC 9 0
    EXC 10 1
    EXC 11 1
    EXC 12 1
    EXC 13 1
    EXC 14 1
    EXC 15 0
    EXC 16 0
    EXC 17 1
    EXC 18 0
    EXC 19 0
    EXC 20 0
    EXC 21 1
exc_common:
    movq %rsp, %rdi              # -> vector, error, rip, cs, rflags, rsp, ss
    movq %cr2, %rsi
    movq %rbp, %rdx
    andq $-16, %rsp
    call guest_fault
    ud2

    .section .rodata
    .global exc_table
    .balign 8
exc_table:
    .quad exc_0, exc_1, exc_2, exc_3, exc_4, exc_5, exc_6, exc_7, exc_8, exc_9, exc_10, exc_11
    .quad exc_12, exc_13, exc_14, exc_15, exc_16, exc_17, exc_18, exc_19, exc_20, exc_21
