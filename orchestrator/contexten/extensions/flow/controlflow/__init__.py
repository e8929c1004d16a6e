"""ControlFlow as an engine: agent tasks as ControlFlow tasks, in one child process that lives as long as the engine.

ControlFlow prints, starts servers, and takes ten seconds to import; so none of it happens in this process. `engine`,
`worker` and `process` are the parent's side, `messages` is what crosses the pipe, the other modules are the child's.
"""
