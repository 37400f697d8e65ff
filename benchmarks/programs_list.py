"""The programs that benchmarks/programs.py runs: where each stands, and what is changed in it.

Every change is one of: data or a metric from a local file, the tiny model, less of it, the CPU for a GPU, a seed, a
fixed address for one that the place gives, or a number printed that was not.
"""

from __future__ import annotations

from benchmarks.programs_run import Program

_PRINTS = "accelerator.backward(loss); print('rank', accelerator.process_index, 'loss', loss.item())"
_GLUE = (
    ('"bert-base-cased"', '"{data}/tiny"'), ('load_dataset("nyu-mll/glue", "mrpc")', 'load_dataset("{data}/mrpc")'),
    ('evaluate.load("glue", "mrpc")', 'evaluate.load("{data}/mrpc_metric")'), ("accelerator.backward(loss)", _PRINTS),
)  # fmt: skip
_TINY = ("--model_name_or_path", "{data}/tiny")
_TEXT = ("--train_file", "{data}/text/train.txt", "--validation_file", "{data}/text/validation.txt")
_PAIRS = ("--train_file", "{data}/mrpc/train.csv", "--validation_file", "{data}/mrpc/validation.csv")
_TRAINER = (
    "--output_dir", "out", "--use_cpu", "--report_to", "none", "--max_steps", "3", "--logging_steps", "1",
    "--per_device_train_batch_size", "2",
)  # fmt: skip
_HYDRA = "examples/tutorials/basic/your_first_hydra_app"
_ON_CPU = {"JAX_PLATFORMS": "cpu"}
_LM, _PETS = "examples/pytorch/language-modeling", "examples/pytorch/text-classification"
_TRAIN_LOSS = r"train_loss['\"]?\s*[:=]\s*['\"]?([\d.]+)"
_WITHOUT_GPUS = ("if not verify_min_gpu_count(min_gpus=_min_gpu_count):", "if False:")
# The toy of PyTorch's DDP example, on the CPU.
_TOY = (
    _WITHOUT_GPUS, (".to(rank)", ""), ("torch.accelerator.set_device_index(rank)", "torch.manual_seed(rank)"),
    ("torch.distributed.get_default_backend_for_device(acc)", "'gloo'"), ("device_ids=[rank]", ""),
    ("loss_fn(outputs, labels).backward()", "loss = loss_fn(outputs, labels); loss.backward()"),
    ('print(f"training completed in rank {rank}!")', "print('rank', rank, 'loss', loss.item())"),
)  # fmt: skip
_SHARDED = (_WITHOUT_GPUS, ("torch.accelerator.current_accelerator().type", "'cpu'; torch.manual_seed(0)"))
_SUM = "loss = output.sum(); loss.backward(); print('rank', dist.get_rank(), 'loss', loss.item())"
_UNTRL = ("--bf16", "False", "--gradient_checkpointing", "False")
_SERIES = (
    ('torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))', "torch.manual_seed(0)"), ('"nccl"', '"gloo"'),
    ("loss.backward()", "loss.backward(); print('rank', os.environ['RANK'], 'loss', loss.item())"),
)  # fmt: skip


def _on_cpu(device: str) -> tuple[tuple[str, str], ...]:
    """The CPU for the GPU of this name."""
    return (f".to({device})", ".to('cpu')"), (f"device_ids=[{device}]", ""), (f'f"cuda:{{{device}}}"', "'cpu'")


def _feature(name: str, *words: str, command: tuple[str, ...] = (), how: str = "torchrun") -> Program:
    """One of accelerate's examples on GLUE's MRPC."""
    what = "data, metric, tiny model; prints its loss"
    path = f"examples/{name}.py"
    return Program("accelerate", path, ("--cpu", *words), _GLUE, how, r"rank 0 loss (\S+)", what, command)


def _test(name: str, last: str) -> Program:
    return Program("accelerate", f"src/accelerate/test_utils/scripts/{name}.py", last=last, what="nothing")


PROGRAMS = (
    Program(
        "examples", "distributed/ddp-tutorial-series/multigpu_torchrun.py", ("2", "1"),
        (*_SERIES, *_on_cpu("self.gpu_id")),
        last=r"rank 0 loss (\S+)", what="CPU, a seed; prints its loss",
    ),
    Program(
        "examples", "distributed/ddp-tutorial-series/multinode.py", ("2", "1"),
        (*_SERIES, *_on_cpu("self.local_rank")),
        last=r"rank 0 loss (\S+)", what="CPU, a seed; prints its loss",
    ),
    _feature("nlp_example"),
    Program(
        "transformers", f"{_LM}/run_clm_no_trainer.py",
        (*_TINY, *_TEXT, "--block_size", "64", "--max_train_steps", "3", "--seed", "1", "--output_dir", "out"),
        (("DistributedType.TPU", "DistributedType.XLA"),), last=r"eval_loss: (\S+)",
        what="data, tiny model; accelerate's new name of TPU",
    ),
    Program(
        "transformers", f"{_LM}/run_clm.py", (*_TINY, *_TEXT, "--block_size", "64", "--do_train", *_TRAINER),
        last=_TRAIN_LOSS, what="data, tiny model",
    ),
    Program(
        "nanoGPT", "train.py",
        (
            "config/train_shakespeare_char.py", "--device=cpu", "--compile=False", "--backend=gloo", "--dtype=float32",
            "--eval_iters=2", "--log_interval=1", "--block_size=32", "--batch_size=4", "--n_layer=2", "--n_head=2",
            "--n_embd=32", "--max_iters=4", "--gradient_accumulation_steps=2",
        ),
        (
            ("device = f'cuda:{ddp_local_rank}'", "device = 'cpu'"), ("torch.cuda.set_device(device)", "pass"),
            ("device_ids=[ddp_local_rank]", ""),
        ),
        last=r"iter \d+: loss ([\d.]+)", what="data, smaller model, CPU", files=(("chars", "data/shakespeare_char"),),
    ),
    Program(
        "pytorch-lightning", "examples/pytorch/bug_report/bug_report_model.py", (),
        (
            ("from lightning.pytorch", "from pytorch_lightning"),
            ("def run():", "def run():\n    torch.manual_seed(0)"),
            ("max_epochs=1,", "max_epochs=1, accelerator='cpu', devices={tasks}, num_nodes={nodes}, strategy='ddp',"),
        ),
        how="srun", last=r"test_loss\W+([-\d.]+)", what="name of the package, CPU, a seed, number of ranks",
    ),
    Program(
        "examples", "distributed/FSDP2/example.py", (),
        (
            _WITHOUT_GPUS,
            ("init_process_group(backend=backend, device_id=device)", "init_process_group(backend=backend)"),
            ("n_layers=10", "n_layers=2"), ("range(10)", "range(3)"),
            ("loss.backward()", "loss.backward(); print('rank', torch.distributed.get_rank(), 'loss', loss.item())"),
        ),
        last=r"rank 0 loss (\S+)", what="CPU, fewer layers and steps; prints its loss",
    ),
    Program(
        "examples", "distributed/ddp/example.py", command=("torchrun", "--nproc-per-node={tasks}"), how="node",
        changes=_TOY,
        last=r"rank 0 loss (\S+)", what="CPU, a seed; prints its loss", shapes=("1x2",),
    ),
    Program(
        "examples", "distributed/ddp/run_example.sh", ("example.py", "2"), how="node", command=("bash",),
        changes=tuple(("example.py", *change) for change in _TOY),
        last=r"rank 0 loss (\S+)", what="CPU, a seed; prints its loss", shapes=("1x2",),
    ),
    Program(
        "hydra", f"{_HYDRA}/5_defaults/my_app.py", ("db.user=me",), how="srun",
        last=r"user: (\w+)", what="nothing",
    ),
    Program(
        "jax", "docs/_static/fault_tolerance/while_loop.py", (),
        (
            ('coordinator_address="localhost:9000",', ""),
            ("process_id=_PROCESS_ID.value,", ""), ("num_processes=_NUM_PROCESSES.value,", ""),
            ("local_device_ids=[_PROCESS_ID.value],", ""),
            ("while True:", "for _ in range(3):"), ("print(time.time())", "print('sum', jax.numpy.arange(4).sum())"),
        ),
        how="srun", last=r"sum (\d+)", what="address and rank from Slurm, three steps, CPU; prints a sum", env=_ON_CPU,
    ),
    Program(
        "mpi4py", "demo/helloworld.py", how="srun", last=r"of (\d+) on", what="nothing", srun=("--mpi=pmi2",),
    ),
    Program(
        "mpi4py", "demo/mandelbrot/mandelbrot.py", (),
        (("toc = MPI.Wtime()", "    print('sum', M.sum(), flush=True)\ntoc = MPI.Wtime()"),),
        how="srun", last=r"sum (\d+)", what="prints a sum", srun=("--mpi=pmi2",),
    ),
    Program(
        "mpi4py", "demo/futures/run_hello.py", how="srun", command=("-m", "mpi4py.futures"),
        last=r"(I am worker 0 of \d+)", what="nothing", srun=("--mpi=pmi2",),
    ),
    Program(
        "hydra", f"{_HYDRA}/6_composition/my_app.py", ("db=postgresql", "ui=view"), how="srun",
        last=r"driver: (\w+)", what="nothing",
    ),
    Program(
        "hydra", f"{_HYDRA}/3_using_config/my_app.py", how="srun",
        last=r"(\w+Error)", what="nothing",
    ),
    Program(
        "mpi4py", "demo/nxtval/nxtval-mpi3.py", (), (("    test_mutex()", "    test_mutex()\n    print('tested')"),),
        how="srun", last=r"(tested)", what="prints that it is through", srun=("--mpi=pmi2",),
    ),
    Program(
        "hydra", f"{_HYDRA}/1_simple_cli/my_app.py", ("+db.user=me",), how="srun",
        last=r"user: (\w+)", what="nothing",
    ),
    Program(
        "submitit", "docs/examples/torch_distributed.py", (),
        (
            ('backend="nccl"', 'backend="gloo"'), (".cuda()", ""), ("time.sleep(120)", "time.sleep(1)"),
            ("sys.exit(main())", "sys.exit(Task()() and 0)"),
        ),
        how="srun", last=r"\[tensor\(([\d.]+)\)\]", what="CPU, no wait; its task itself, without the submission",
        env={"SUBMITIT_EXECUTOR": "slurm"},
    ),
    _test("test_sync", r"(\*\*Test [^*]+\*\*)"),
    _test("test_ops", r"(testing \w+)"),
    _test("test_script", r"(\*\*\w[^*]+\*\*)"),
    _test("test_distributed_data_loop", r"(Test that \w[^\n]+)"),
    _feature("complete_nlp_example", "--checkpointing_steps", "epoch", "--output_dir", "out"),
    _feature("by_feature/gradient_accumulation", "--gradient_accumulation_steps", "2"),
    _feature("by_feature/local_sgd", "--local_sgd_steps", "2"),
    _feature("by_feature/multi_process_metrics"),
    _feature("by_feature/early_stopping"),
    _feature("by_feature/memory"),
    _feature("by_feature/ddp_comm_hook"),
    _feature("by_feature/cross_validation", "--num_folds", "2"),
    _feature("nlp_example", command=("accelerate", "launch", "--num_processes={tasks}", "--cpu"), how="node"),
    Program(
        "trl", "trl/scripts/sft.py",
        (*_TINY, "--dataset_name", "{data}/chats", *_UNTRL, *_TRAINER),
        last=_TRAIN_LOSS, what="data, tiny model",
    ),
    Program(
        "trl", "trl/scripts/dpo.py",
        (*_TINY, "--dataset_name", "{data}/preferences", *_UNTRL, *_TRAINER),
        last=_TRAIN_LOSS, what="data, tiny model",
    ),
    Program(
        "transformers", f"{_PETS}/run_glue.py",
        (*_TINY, *_PAIRS, "--do_train", "--max_seq_length", "64", *_TRAINER),
        (('evaluate.load("accuracy", cache_dir=model_args.cache_dir)', 'evaluate.load("{data}/mrpc_metric")'),),
        last=_TRAIN_LOSS, what="data, metric, tiny model",
    ),
    Program(
        "transformers", f"{_PETS}/run_glue_no_trainer.py",
        (*_TINY, *_PAIRS, "--max_train_steps", "3", "--seed", "1", "--max_length", "64", "--output_dir", "out"),
        (
            ('evaluate.load("accuracy")', 'evaluate.load("{data}/mrpc_metric")'),
            ("accelerator.backward(loss)", _PRINTS),
        ),
        last=r"rank 0 loss (\S+)", what="data, metric, tiny model; prints its loss",
    ),
    Program(
        "examples", "distributed/tensor_parallelism/tensor_parallel_example.py", (),
        (*_SHARDED, ("output.sum().backward()", _SUM)),
        last=r"rank 0 loss (\S+)", what="CPU, a seed; prints its loss",
    ),
    Program(
        "examples", "distributed/tensor_parallelism/sequence_parallel_example.py", (),
        (*_SHARDED, ("output.sum().backward()", _SUM)),
        last=r"rank 0 loss (\S+)", what="CPU, a seed; prints its loss",
    ),
)  # fmt: skip
