"""Questions to a model about one picture each, answered in JSON that is checked before a stage sees it.

question   what a stage asks, and the check of an answer against its schema
models     what is known of each model: prices, picture tokens, effort, shutdown
pictures   pictures as small as the model sees them
pace       requests and tokens per minute, as the server's headers tell them
settings   the flags of an asking stage
budget     --max-cost: what may still be spent
estimates  --estimate: what a run will cost
client     one call of a server that speaks the Responses or the Chat Completions API
replies    the server's answers, whatever API spoke, as one form
answers    every answer that was paid for, on disk before it counts
rows       `ask_rows`: a stage's rows asked in parallel, on a budget
batches    the same through the Batch API, at half the price
"""
