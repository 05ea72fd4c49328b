from onnx import ModelProto, NodeProto, TensorProto, helper
from small_cnn import small_cnn

from bench.layers.origin import find_origins

BLOCKED = "com.microsoft.nchwc"


def executed(*nodes: NodeProto, constants: tuple[str, ...] = ()) -> ModelProto:
    stored = [helper.make_tensor(name, TensorProto.FLOAT, (1,), [0.0]) for name in constants]
    return helper.make_model(helper.make_graph(list(nodes), "executed", [], [], stored))


def node(
    operator: str, inputs: list[str], outputs: list[str], name: str, domain: str = "", **attributes: object
) -> NodeProto:
    return helper.make_node(operator, inputs, outputs, name, domain=domain, **attributes)


def test_a_graph_executed_as_given_is_itself() -> None:
    model = small_cnn()

    origins = find_origins(model, model)

    assert all(nodes == (name,) for name, nodes in origins.nodes.items())
    assert len(origins.nodes) == len(model.graph.node)
    assert origins.unseen == ()


def test_what_leads_to_an_answer_belongs_to_it() -> None:
    origins = find_origins(
        small_cnn(), executed(node("FusedConv", ["images", "w"], ["stem_act"], "x", activation="Relu"))
    )

    assert origins.nodes["x"] == ("subtract", "stem", "stem_relu")
    assert "depth" in origins.unseen


def blocked(*, summand: str = "t0") -> ModelProto:
    """As ONNX Runtime does it: named after the answer of the convolution, which then adds and rectifies."""
    return executed(
        node("Sub", ["images", "mean"], ["centred"], "subtract"),
        node("Conv", ["centred", "w0"], ["t0"], "stem_act_nchwc", BLOCKED, activation="Relu"),
        node("Conv", ["t0", "w1"], ["t1"], "depth_act_nchwc_token_7", BLOCKED, activation="Relu"),
        node("Conv", ["t1", "w2", "b2", summand], ["t2"], "point_out_nchwc", BLOCKED, activation="Relu"),
        node("GlobalAveragePool", ["t2"], ["t3"], "pooled_nchwc", BLOCKED),
        node("ReorderOutput", ["t3"], ["pooled"], "ReorderOutput", BLOCKED),
        node("Flatten", ["pooled"], ["flat"], "flatten"),
        node("Gemm", ["flat", "dense.w"], ["classes"], "dense"),
        constants=("w0", "w1", "w2", "b2"),
    )


def test_blocked_layout_is_followed_through_sums_and_activations() -> None:
    origins = find_origins(small_cnn(), blocked())

    assert origins.nodes["stem_act_nchwc"] == ("stem", "stem_relu")
    assert origins.nodes["depth_act_nchwc_token_7"] == ("depth", "depth_relu")
    assert origins.nodes["point_out_nchwc"] == ("point", "add", "add_relu")
    assert origins.nodes["pooled_nchwc"] == ("pool",)
    assert origins.unseen == ()


def test_a_change_of_layout_is_nobodys_work() -> None:
    assert find_origins(small_cnn(), blocked()).nodes["ReorderOutput"] == ()


def test_what_reads_too_little_is_not_believed() -> None:
    origins = find_origins(small_cnn(), blocked(summand="t1"))  # adds something else than the graph does

    assert origins.nodes["point_out_nchwc"] == ("point",)
    assert origins.nodes["pooled_nchwc"] == ()  # it would have to do the sum, and does not read the summand
    assert {"add", "add_relu", "pool"} <= set(origins.unseen)


def test_a_name_that_says_nothing_is_not_guessed() -> None:
    origins = find_origins(small_cnn(), executed(node("Conv", ["images", "w"], ["t"], "x_nchwc", BLOCKED)))

    assert origins.nodes["x_nchwc"] == ()


def test_an_added_conversion_that_took_a_tensors_name_does_not_take_its_work() -> None:
    origins = find_origins(small_cnn(), executed(node("Cast", ["t"], ["stem_out"], "added", to=1)))

    assert origins.nodes["added"] == ()


def test_constants_computed_of_constants_are_nobodys() -> None:
    model = small_cnn()
    folded = helper.make_node("Identity", ["mean"], ["mean_too"], "fold")
    model.graph.node.insert(0, folded)
    model.graph.node[1].input[1] = "mean_too"

    assert "fold" not in find_origins(model, executed()).unseen


def test_a_view_that_two_read_and_nobody_executes_is_looked_through() -> None:
    model = small_cnn()
    model.graph.node.insert(3, helper.make_node("Identity", ["stem_act"], ["same"], "view"))
    model.graph.node[4].input[0] = model.graph.node[7].input[1] = "same"

    origins = find_origins(model, blocked())

    assert origins.nodes["depth_act_nchwc_token_7"] == ("view", "depth", "depth_relu")


def test_what_is_executed_once_may_be_repeated_inside_another() -> None:
    """As with quantised graphs: one reader takes the bytes, for another they are turned to floats."""
    model = small_cnn()
    model.graph.node.insert(3, helper.make_node("Cast", ["stem_act"], ["floats"], "to_float", to=1))
    model.graph.node[4].input[0] = model.graph.node[7].input[1] = "floats"

    origins = find_origins(
        model,
        executed(
            node("FusedConv", ["images", "w"], ["stem_act"], "stem", activation="Relu"),
            node("Cast", ["stem_act"], ["floats"], "to_float", to=1),
            node("FusedConv", ["floats", "w"], ["depth_act"], "depth", activation="Relu"),
            node("FusedConv", ["depth_act", "w"], ["point_out"], "point"),
            node("FusedAdd", ["point_out", "stem_act"], ["sum_act"], "sum", activation="Relu"),
        ),
    )

    assert origins.nodes["sum"] == ("add", "add_relu")


def test_what_cannot_be_told_does_not_spread() -> None:
    given = executed(
        node("FusedConv", ["nowhere", "w"], ["stem_act"], "stem", activation="Relu"),
        node("FusedConv", ["stem_act", "w"], ["depth_act"], "depth", activation="Relu"),
    )

    origins = find_origins(small_cnn(), given)

    assert origins.nodes["stem"] == ()
    assert origins.nodes["depth"] == ("depth", "depth_relu")


def test_a_cheap_node_does_no_arithmetic() -> None:
    """A conversion that was added took the place of one that was there: the convolution before is not its."""
    model = small_cnn()
    model.graph.node.insert(3, helper.make_node("Cast", ["stem_act"], ["floats"], "to_float", to=1))

    origins = find_origins(model, executed(node("Cast", ["images"], ["floats"], "to_float", to=1)))

    assert origins.nodes["to_float"] == ()


def test_a_numbered_name_is_the_nodes() -> None:
    given = executed(node("QLinearConv", ["images", "w"], ["stem"], "stem_token_93", "com.microsoft"))

    assert find_origins(small_cnn(), given).nodes["stem_token_93"] == ("subtract", "stem")
