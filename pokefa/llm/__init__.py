"""Questions to a model about one image each, answered in JSON that is checked before a stage sees it.

prompt      what a stage asks, and the check of an answer against its schema
prices      what is known of each model: prices, image tokens, effort, shutdown date
images      images as small as the model sees them
rate_limit  requests and tokens per minute, learned from the server's headers
options     the flags of a stage that asks a model
budget      --max-cost: what may still be spent
estimate    --estimate: what a run will cost
client      one call of a server that speaks the Responses or the Chat Completions API
wire        requests and answers of both APIs as plain data
store       every answer that was paid for, on disk before it counts
map_rows    `ask_rows`: a stage's rows asked in parallel, on a budget
batch_api   the same through the Batch API, at half the price
recaps      the files of a second try at captions
"""
