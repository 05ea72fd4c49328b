"""A gRPC server for asyncio on the completion queue of gRPC's C core: much cheaper a call than grpc.aio's."""
